"""The training loop, its preparation, its tasks, and its records."""
