"""A checkpoint, a few questions of one's own, and evaluations of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import miniatures
import torch

from vilamp.build import build_model, build_optim, portable
from vilamp.config import compose
from vilamp.evaluation.run import Evaluation, evaluate
from vilamp.training.module import VideoQA

HERE = ["num_keyframes=3", "data.num_workers=0", "data.decode_timeout=null", "data.decode_memory=null"]
"""Settings of a run that decodes in its own process."""
OPTIONS = ["a circle", "a square", "a ring"]


def make_checkpoint(path: Path, *settings: str) -> Path:
    """The tiny model as it comes, as a training run would have saved it."""
    cfg = compose("train", [f"paths.output_dir={path.parent}", f"paths.data_dir={path.parent}", *settings])
    module = VideoQA(build_model(cfg), build_optim(cfg), portable(cfg))
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict(), "global_step": 0}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    return path


def write_questions(folder: Path, per_video: int = 3) -> Path:
    """Questions about two videos that are there, one that is broken and one that is missing."""
    miniatures.put_clips(folder, ["a.mp4", "b.mp4"])
    (folder / "broken.mp4").write_bytes(miniatures.clip()[:600])
    rows = [
        {"id": f"{video}/{number}", "video": f"{video}.mp4", "question": f"What shape is number {number}?",
         "options": OPTIONS[: 2 + number % 2], "answer": "AB"[number % 2], "kind": video}
        for number in range(per_video)
        for video in ("a", "b", "broken", "missing")
    ]  # fmt: skip
    miniatures.write_json(folder / "own.json", rows)
    return folder


def settings(checkpoint: Path, questions: Path, folder: Path, *more: str) -> list[str]:
    """Of an evaluation of these questions, as on the command line."""
    own = [f"benchmark.annotations={questions / 'own.json'}", f"benchmark.videos={questions}"]
    return [f"checkpoint={checkpoint}", "benchmark=multiple_choice", *own, "benchmark.max_new_tokens=4",
            "report=false", f"paths.output_dir={folder}", *more]  # fmt: skip


def run(checkpoint: Path, questions: Path, folder: Path, *more: str) -> Evaluation:
    """Evaluate in this process."""
    return evaluate(compose("evaluate", settings(checkpoint, questions, folder, *more)))


def same(folder: Path) -> dict[str, Any]:
    """Of a folder's result and answers all that must not depend on how they came about."""
    found = json.loads((folder / "result.json").read_text())
    for free in ("seconds", "memory", "processes"):
        del found[free]
    del found["config"]["paths"], found["config"]["report"]
    lines = (folder / "answers.jsonl").read_text().splitlines()
    answers = [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]
    return found | {"answers": answers}
