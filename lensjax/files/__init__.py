"""Bytes and formats of files; nothing here knows what a lens is."""
