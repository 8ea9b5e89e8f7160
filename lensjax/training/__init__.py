"""The training loop, what comes before its first step, and what it shows."""
