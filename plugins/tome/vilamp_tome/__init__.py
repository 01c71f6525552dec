"""Token Merging as a frame merger of ViLaMP-Lightning."""

from vilamp_tome.merger import TokenMerging

__all__ = ["TokenMerging"]
