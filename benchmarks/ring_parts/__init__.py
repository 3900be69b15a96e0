"""Parts of ``ring_recovery.py``: conditions, fitting, scores, tables."""
