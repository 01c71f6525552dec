"""How the tiny base is made, one part a file; see ``scripts/build_tiny_base.py``."""
