"""Measures the images of a run or a file and writes tables and a report, by one protocol."""
