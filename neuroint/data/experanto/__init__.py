"""The folders that the package experanto reads: devices on one clock, each sampled at its own rate."""
