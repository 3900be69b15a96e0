"""NWB files of the Neural Latents Benchmark: read, checked, binned, and made into the benchmark's arrays."""
