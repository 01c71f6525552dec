"""Frame mergers: how every other frame becomes a token.  One variant, one file; the file name is the name in the config."""
