"""Devices, processes and memory: how arrays and work lie on them; no configuration comes here."""
