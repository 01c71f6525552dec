"""Scorer, vision tower, projector, language model, and the visual stream that joins them.  No Lightning, no Hydra."""
