"""Every file here registers the normalizations it defines."""
