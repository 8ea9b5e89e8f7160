"""Weights that other frameworks wrote, read without these frameworks."""
