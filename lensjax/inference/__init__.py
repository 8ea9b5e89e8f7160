"""A trained run as an object: loading, drawing, densities, classes, and what comes trained."""
