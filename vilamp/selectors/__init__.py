"""Frame selectors: which frames keep full precision.  One variant, one file, named as in the config."""
