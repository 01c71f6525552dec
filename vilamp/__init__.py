"""ViLaMP-Lightning: train and adapt video-language models on hours of video."""

__version__ = "0.1.0"
