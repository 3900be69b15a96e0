"""Parts of the simulated mouse V1: stimulus, cells, circuit, recording, and the files written."""
