"""A file per score; each registers a function from moments to one value per neuron."""
