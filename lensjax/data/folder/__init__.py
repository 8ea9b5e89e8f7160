"""A user's own files as a data set: listed, read twice, and written for TFDS."""
