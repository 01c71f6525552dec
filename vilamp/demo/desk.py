"""What happens on the page, without the page."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vilamp.errors import DataError
from vilamp.session import Answer, LoadedModel, Progress, Session


@dataclass(frozen=True)
class Shown:
    """An answer as it stands on the page.

    Attributes:
        session: of the video.
        answer: to the question.
        picture: uint8[h, w, 3], the timeline.
        left, right: columns of the picture where its axis of time begins and ends.
        begin, end: the seconds there.
    """

    session: Session
    answer: Answer
    picture: np.ndarray
    left: float
    right: float
    begin: float
    end: float

    @classmethod
    def of(cls, session: Session, answer: Answer) -> Shown:
        """Draw the timeline."""
        figure = session.timeline(answer)
        figure.canvas.draw()
        axis = figure.axes[0]
        extent, (begin, end) = axis.get_window_extent(), axis.get_xlim()
        picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
        return cls(session, answer, picture, extent.x0, extent.x1, begin, end)

    def frame_at(self, column: float) -> tuple[np.ndarray, float]:
        """The frame on display at a column of the picture, uint8[H, W, 3], and since when, in seconds."""
        share = (column - self.left) / (self.right - self.left)
        wanted = self.begin + min(max(share, 0.0), 1.0) * (self.end - self.begin)
        times = self.answer.times.numpy()
        index = max(int(np.searchsorted(times, wanted, side="right")) - 1, 0)
        return self.session.video.frames[index].numpy(), float(times[index])

    @property
    def keyframes(self) -> list[tuple[np.ndarray, str]]:
        """The pictures that were kept whole, each with its time."""
        chosen = self.answer.selection.keyframes.cpu()
        frames = self.session.video.frames[chosen].numpy()
        return [(frame, f"{time:.1f} s") for frame, time in zip(frames, self.answer.keyframes, strict=True)]


class Desk:
    """Answers what comes from the pages.  The video that was asked about last stays open, whoever asks.

    Args:
        loaded: the model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self._lock = threading.Lock()
        self._open: tuple[tuple[str, int], Session] | None = None

    def ask(self, uploaded: str | None, path: str, question: str, progress: Progress | None = None) -> Shown:
        """Answer a question about a video that was uploaded, or lies where the server can read it.

        Raises:
            DataError: there is no video, two of them, or nothing that can be asked.
        """
        path = path.strip()
        if bool(uploaded) == bool(path):
            raise DataError("give a video: upload one, or name the path of one, not both")
        with self._lock:
            session = self._session(uploaded or path, progress)
            return Shown.of(session, session.ask(question))

    def _session(self, video: str, progress: Progress | None) -> Session:
        file = Path(video)
        key = (str(file.absolute()), file.stat().st_mtime_ns if file.is_file() else 0)
        if self._open is None or self._open[0] != key:
            self._open = None  # before the next one takes its memory
            self._open = (key, self.loaded.open(file, progress))
        return self._open[1]
