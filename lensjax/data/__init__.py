"""Data: the simulator, the sets built from it, and batches."""
