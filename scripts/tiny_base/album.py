"""Needles and haystacks as the trained tower sees them, and questions about several of them."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_base.pictures import GRID, draw_frames
from vilamp.data.needle_scene import COLOURS, KINDS, PLACES, SHAPES, Needle, ask, new_needles
from vilamp.models.text import PromptEncoder
from vilamp.models.vision_tower import SiglipTower
from vilamp.samples import EncodedQuestion, Question

KEYFRAME_GRID = 4
"""Tokens along one side of a keyframe."""


class Album:
    """Needles and haystacks as the trained tower sees them, drawn once and asked about many times.

    Attributes:
        patches: float[n, P, Dv].
        covered: float[n, T], the share of each token of a keyframe that its needle covers.
        needles: what each frame shows, None for a haystack alone.
    """

    @torch.no_grad()
    def __init__(self, tower: SiglipTower, frames: int, rng: np.random.Generator) -> None:
        self.needles: list[Needle | None] = []
        self.rows: dict[tuple[str, str, str] | None, list[int]] = {}
        patches, covered = [], []
        every = [Needle(*named) for named in itertools.product(SHAPES, COLOURS, PLACES)]
        turns = itertools.cycle(rng.permutation(len(every)))  # so that no needle is missing
        for _ in range(frames // 64):
            needles = [None if i % 8 == 7 else every[next(turns)] for i in range(64)]
            drawn, shares = draw_frames(needles, rng)
            patches.append(tower(drawn))
            covered.append(F.avg_pool2d(shares.view(-1, GRID, GRID), GRID // KEYFRAME_GRID).flatten(1))
            self.needles += needles
        self.patches, self.covered = torch.cat(patches), torch.cat(covered)
        for row, needle in enumerate(self.needles):
            self.rows.setdefault(_named(needle), []).append(row)

    def row(self, needle: Needle | None, rng: np.random.Generator) -> int:
        """Any frame with this needle; of a haystack alone for None."""
        rows = self.rows[_named(needle)]
        return rows[int(rng.integers(len(rows)))]

    def ask(
        self, frames_each: int, batch: int, encode: PromptEncoder, rng: np.random.Generator
    ) -> tuple[Tensor, list[EncodedQuestion]]:
        """Questions, each over frames of its own of which some are haystacks: int64[batch, frames_each], the rows."""
        rows, questions = [], []
        for _ in range(batch):
            kind, needles, group = self._group(frames_each, 1, 6, rng)
            rows.append(rng.permutation(group))
            questions.append(_question(needles[0], kind, encode, rng))
        return torch.from_numpy(np.stack(rows)), questions

    def ask_of_many(
        self, frames_each: int, batch: int, encode: PromptEncoder, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor, list[EncodedQuestion]]:
        """Questions about many frames, up to four of which are whole, mostly such that show something.

        Returns:
            int64[batch, frames_each], the rows; bool of the same size, which of them are whole; and the questions.
        """
        rows, whole, questions = [], [], []
        for _ in range(batch):
            kind, needles, group = self._group(frames_each, 2, 7, rng)
            by_chance = rng.random() < 0.3
            shows = np.arange(frames_each) < len(needles)
            rank = rng.permutation(frames_each) - (0 if by_chance else frames_each * shows)
            rank[0] = -2 * frames_each if rng.random() < 0.35 else frames_each  # the frame that is asked about
            order = rng.permutation(frames_each)
            rows.append(np.array(group)[order])
            whole.append((rank.argsort().argsort() < rng.integers(1, 5))[order])
            questions.append(_question(needles[0], kind, encode, rng))
        return torch.from_numpy(np.stack(rows)), torch.from_numpy(np.stack(whole)), questions

    def _group(
        self, frames_each: int, least: int, most: int, rng: np.random.Generator
    ) -> tuple[str, list[Needle], list[int]]:
        """A kind of question, some needles, and the rows of frames that show them first and nothing after that."""
        kind = KINDS[int(rng.integers(len(KINDS)))]
        shown = int(rng.integers(least, min(frames_each, most) + 1))
        needles = new_needles(shown, min(shown, len(PLACES)) if kind == "look_alike" else 1, rng)
        group = [self.row(needle, rng) for needle in needles]
        group += [self.row(None, rng) for _ in range(frames_each - len(group))]
        return kind, needles, group

    def in_words(self, rows: Tensor, encode: PromptEncoder, embeddings: Tensor) -> Tensor:
        """What the pictures would be if they were words: float[len(rows), T, D].

        A token that a needle covers is the sum of the embeddings of the words for it, and every other token is zero.
        """
        words = torch.zeros(len(rows), len(embeddings))
        for i, row in enumerate(rows.tolist()):
            if (needle := self.needles[row]) is not None:
                for word in (needle.shape, needle.colour, needle.place):
                    words[i, encode.tokenizer(word).input_ids] = 1.0
        return self.covered[rows, :, None] * (words @ embeddings)[:, None]


def _named(needle: Needle | None) -> tuple[str, str, str] | None:
    return None if needle is None else (needle.shape, needle.colour, needle.place)


def _question(needle: Needle, kind: str, encode: PromptEncoder, rng: np.random.Generator) -> EncodedQuestion:
    text, answer = ask(needle, kind, rng)
    return encode(Question(text, answer, text, kind), "", True, 0)
