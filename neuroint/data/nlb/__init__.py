"""The HDF5 layout of the Neural Latents Benchmark: files, checks, and submissions."""
