"""Every file here registers the interactions it defines."""
