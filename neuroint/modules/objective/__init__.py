"""Every file here registers the objectives it defines."""
