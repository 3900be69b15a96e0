"""Every file here registers the cores it defines."""
