"""Adaptive Keyframe Sampling as a frame selector of ViLaMP-Lightning."""

from vilamp_aks.selector import AdaptiveKeyframes

__all__ = ["AdaptiveKeyframes"]
