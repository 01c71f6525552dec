"""ViLaMP-Lightning: train and adapt video-language models on hours of video."""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing the package imports no library
    from os import PathLike
    from typing import Any

    from vilamp.session import LoadedModel


def load(checkpoint: str | PathLike[str] | None = None, **settings: Any) -> LoadedModel:
    """A model that can be asked about videos, as ``docs/ask.md`` tells.

    ::

        model = vilamp.load("outputs/DAY/TIME/checkpoints/best.ckpt")
        session = model.open("holiday.mp4")
        print(session.ask("what colour is the boat?").text)

    Args:
        checkpoint: of a run; None loads the tiny base as it ships, or what the settings name.
        **settings: of ``conf/ask.yaml``, in place of those of the checkpoint's run, e.g. ``max_frames=600``; one inside
            another as ``**{"selector.tau": 0.9}``.

    Raises:
        ConfigError: no such checkpoint or setting, or parts that do not fit together.
    """
    from vilamp.session import load

    return load(checkpoint, settings)
