"""Find out which neuron interactions and normalizations help predict a recorded population."""
