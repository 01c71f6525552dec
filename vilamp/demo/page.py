"""How the page looks; needs gradio, the extra ``demo``."""

from __future__ import annotations

from typing import Any

import gradio as gr

from vilamp.demo.desk import Desk, Shown
from vilamp.errors import ConfigError, VilampError
from vilamp.session import LoadedModel

TITLE = "Ask a video"


def page(loaded: LoadedModel) -> gr.Blocks:
    """The page, not started yet."""
    desk = Desk(loaded)

    def ask(uploaded: str | None, path: str, question: str, progress: gr.Progress = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        def tell(doing: str, done: int, total: int) -> None:
            progress((done, total) if total else None, desc=doing)

        try:
            shown = desk.ask(uploaded, path, question, tell)
        except VilampError as error:
            raise gr.Error(str(error), print_exception=False) from error
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


def serve(loaded: LoadedModel, port: int | None) -> None:
    """Show the page on this machine until Ctrl-C; None takes the first port that is free from 7860 on.

    Raises:
        ConfigError: the port is taken.
    """
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # none from the network
    try:
        # A path is read by this machine, so nobody else is let in.
        page(loaded).launch(server_name="127.0.0.1", server_port=port, theme=theme, footer_links=[], show_error=True)
    except OSError as error:
        raise ConfigError(f"--port {port}: {error}") from error
