"""Making shards, indexing those of others, and verifying them."""
