"""Parts of the benchmark ``silencing.py``."""
