"""Measures of images: arrays in, numbers out."""
