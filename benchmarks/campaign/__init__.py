"""The parts of `benchmarks/faults.py`: children, their judge, and what is done to them."""
