"""A file per simulated world; each registers a simulator that writes a data set with its truth."""
