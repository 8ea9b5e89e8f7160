"""Bytes and formats of files: arrays, images and weights, read without running anything."""
