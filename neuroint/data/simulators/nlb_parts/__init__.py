"""Parts of the simulator ``nlb``."""
