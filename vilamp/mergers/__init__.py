"""Frame mergers: how every other frame becomes a token.  One variant, one file, named as in the config."""
