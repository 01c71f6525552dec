"""The Lightning side: steps, optimiser groups, metrics, what a run writes.  No architecture."""
