"""``vilamp demo``: ask a video in a browser.  What happens on the page is here; how it looks needs gradio."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vilamp.errors import ConfigError, DataError
from vilamp.session import Answer, LoadedModel, Progress, Session

TITLE = "Ask a video"
EXTRA = "pip install 'vilamp-lightning[demo]'"


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


def page(loaded: LoadedModel) -> Any:
    """The page as a ``gradio.Blocks``, not started yet.

    Raises:
        ConfigError: gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise ConfigError(f"vilamp demo needs gradio: {EXTRA}") from error
    desk = Desk(loaded)

    def ask(uploaded: str | None, path: str, question: str, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        def tell(doing: str, done: int, total: int) -> None:
            progress((done, total) if total else None, desc=doing)

        try:
            shown = desk.ask(uploaded, path, question, tell)
        except (ConfigError, DataError) as error:
            raise gr.Error(str(error)) from error
        told = f"{shown.answer.text or '(nothing)'}  ({shown.answer.confidence:.0%} sure)"
        return shown, told, shown.picture, shown.keyframes, None

    def look(shown: Shown | None, click: gr.SelectData) -> Any:
        if shown is None:
            return None
        frame, time = shown.frame_at(click.index[0])
        return gr.Image(frame, label=f"the frame at {time:.1f} s")

    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {TITLE}\n{loaded.remark}")
        with gr.Row():
            uploaded = gr.Video(sources=["upload"], label="video", height=240)
            with gr.Column():
                path = gr.Textbox(label="or the path of one on this machine", elem_id="path")
                question = gr.Textbox(label="question", elem_id="question")
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                answer = gr.Textbox(label="answer", interactive=False, elem_id="answer")
        timeline = gr.Image(label="timeline: click for the frame at that time", interactive=False, elem_id="timeline")
        with gr.Row():
            keyframes = gr.Gallery(label="keyframes", columns=4, height=260)
            frame = gr.Image(label="frame", interactive=False, height=260, elem_id="frame")
        shown = gr.State()
        inputs, outputs = [uploaded, path, question], [shown, answer, timeline, keyframes, frame]
        button.click(ask, inputs, outputs)
        question.submit(ask, inputs, outputs)
        timeline.select(look, shown, frame)
    return blocks


def appearance() -> dict[str, Any]:
    """How the page looks, as arguments of its ``launch``; without fonts from the network."""
    import gradio as gr

    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return {"theme": theme, "footer_links": []}


def serve(loaded: LoadedModel, port: int | None) -> None:
    """Show the page on this machine until Ctrl-C; None takes the first port that is free from 7860 on.

    Raises:
        ConfigError: gradio is not installed, or the port is taken.
    """
    blocks = page(loaded)
    try:
        # A path is read by this machine, so nobody else is let in.
        blocks.launch(server_name="127.0.0.1", server_port=port, show_error=True, **appearance())
    except OSError as error:
        raise ConfigError(f"--port {port}: {error}") from error
