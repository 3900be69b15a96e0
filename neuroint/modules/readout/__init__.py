"""Every file here registers the readouts it defines."""
