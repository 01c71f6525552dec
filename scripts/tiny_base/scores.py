"""What the finished parts score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tiny_base.album import Album
from tiny_base.language import TEMPERATURES, answer, answer_whole, load_base, see
from tiny_base.pictures import draw_frames
from tiny_base.scorer import share_found
from vilamp.data.needle_scene import KINDS, ask, new_needles
from vilamp.samples import Question


@torch.no_grad()
def measure(root: Path, seed: int) -> dict[str, float]:
    """What the saved parts score on frames that they have not seen."""
    rng = np.random.default_rng(seed)
    model, encode = load_base(root, root / "projector.safetensors")
    model.eval()
    album = Album(model.vision_tower, 1280, rng)
    scores = {}
    for frames_each in (1, 4, 8):
        exact: dict[str, list[bool]] = {kind: [] for kind in KINDS}
        for _ in range(20):
            rows, questions = album.ask(frames_each, 32, encode, rng)
            tokens = model.projector.project_keyframes(album.patches[rows.flatten()])
            for question, right in zip(questions, answer_whole(model, tokens, questions)[1].tolist(), strict=True):
                exact[question.source.kind].append(right)
        for kind, answers in exact.items():
            scores[f"exact match, {kind}, {frames_each} frames ({len(answers)} questions)"] = float(np.mean(answers))
    exact = {kind: [] for kind in KINDS}
    for _ in range(20):
        rows, whole, questions = album.ask_of_many(100, 32, encode, rng)
        right = answer(model, see(model, album.patches[rows], whole, questions, min(TEMPERATURES)), questions)[1]
        for question, yes in zip(questions, right.tolist(), strict=True):
            exact[question.source.kind].append(yes)
    for kind, answers in exact.items():
        name = f"exact match, {kind}, 100 frames of which up to 4 are whole ({len(answers)} questions)"
        scores[name] = float(np.mean(answers))
    found = []
    for _ in range(100):
        needles = new_needles(5, 1, rng)
        asked, kind = needles[0], KINDS[int(rng.integers(len(KINDS)))]
        text, _ = ask(asked, kind, rng)
        question = encode(Question(text, "", text, kind), "", True, 0)
        frames = model.scorer.embed_frames(draw_frames([*needles, *[None] * 123], rng)[0])
        found.append(int((frames @ model.scorer.embed_queries([question.query_ids])[0]).argmax()) == 0)
    scores["scorer: right frame first of 128 (100 questions)"] = float(np.mean(found))
    name = "scorer and tower: most relevant patch of a frame is what is asked about (512 frames, all questions)"
    scores[name] = share_found(root, rng)
    return scores
