"""A run's folder, and how a configuration becomes data sets, networks, losses and steps."""
