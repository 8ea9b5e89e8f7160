"""A trained run as an object: loading, drawing, densities, classes, pretrained networks."""
