"""From shards to batches: reading, decoding, sampling, order, and the needle data."""
