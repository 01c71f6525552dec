"""``vilamp demo``: ask a video in a browser."""
