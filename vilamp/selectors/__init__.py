"""Frame selectors: which frames keep full precision.  One variant, one file; the file name is the name in the config."""
