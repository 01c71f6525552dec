"""A checkpoint of ours as a model of lmms-eval: its tasks, its prompts, its scores.

    lmms-eval --model vilamp --model_args checkpoint=outputs/DAY/TIME/checkpoints/best.ckpt --tasks videomme

Only lmms-eval imports this.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from vilamp.benchmark import Benchmark, Item, Prompt, Spliced, Verdict, VideoFile
from vilamp.config import compose
from vilamp.errors import ConfigError, DataError
from vilamp.evaluation.answers import Answer
from vilamp.evaluation.asking import GENERATION, Asker, Scoring
from vilamp.evaluation.videos import Group, Videos
from vilamp.samples import SkipSample
from vilamp.training.run import configuration_of, restore
from vilamp.training.trained import read_trained

MAX_NEW_TOKENS = 64
"""Where a task does not say how long answers may become."""


class _AsGiven(Benchmark):
    """Asks what lmms-eval hands over; judging is its business."""

    def items(self) -> list[Item]:
        return []

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        return Prompt(item.question, continuations=item.options)

    def judge(self, item: Item, text: str) -> Verdict:
        return Verdict(right=False)


class ViLaMP(lmms):
    """Answers about one video at a time, greedily.

    A video is decoded and encoded once for all the questions of a call about it.  Frames are searched for what the
    task's document has under ``question``, else for the whole prompt, as far as the scorer reads it.

    Args:
        checkpoint: of a training run.
        fps, max_frames, num_keyframes: None takes those of the run.
        device: ``cpu``, or a GPU as torch names it.
        questions_at_once: about one video, answered together.
        batch_size, max_batch_size: of lmms-eval; not used.

    Raises:
        ConfigError: no such checkpoint, or it does not fit.
    """

    def __init__(
        self,
        checkpoint: str,
        fps: float | None = None,
        max_frames: int | None = None,
        num_keyframes: int | None = None,
        device: str = "cpu",
        questions_at_once: int = 4,
        batch_size: int = 1,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        with tempfile.TemporaryDirectory() as folder:  # restoring writes down the configuration
            named = {"fps": fps, "max_frames": max_frames, "num_keyframes": num_keyframes}
            given = [f"{key}={value}" for key, value in named.items() if value is not None]
            cfg = compose("evaluate", [f"checkpoint='{checkpoint}'", f"paths.output_dir='{folder}'", *given])
            trained = read_trained(checkpoint, "checkpoint")
            merged = configuration_of(cfg, trained)
            merged.data.val = merged.data.generate = None
            self.parts = restore(merged, trained)
        self.seed = int(merged.seed)
        self.model = self.parts.module.model.eval().to(device)
        self.device = self.model.scorer.preprocess.mean.device
        self.questions_at_once = questions_at_once

    @property
    def rank(self) -> int:
        """Of this process, which alone answers."""
        return 0

    @property
    def world_size(self) -> int:
        """One process."""
        return 1

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Greedy answers, each up to the first of the task's stop texts.

        Raises:
            ConfigError: the task draws answers at random.
            DataError: a video that is missing or cannot be decoded, or a task that is not about one video.
        """
        items, longest, stops = [], [], []
        for number, request in enumerate(requests):
            prompt, wanted, to_visual, doc_id, task, split = request.args
            if wanted.get("do_sample") and wanted.get("temperature", 1.0) > 0:
                raise ConfigError(f"the task {task} draws its answers at random; this model answers greedily")
            items.append(self._item(number, prompt, self.task_dict[task][split][doc_id], to_visual, task))
            longest.append(int(wanted.get("max_new_tokens", MAX_NEW_TOKENS)))
            until = wanted.get("until") or []
            stops.append([until] if isinstance(until, str) else list(until))
        answers = self._answers(items, longest, GENERATION)
        return [_until(str(answer.text), stop) for answer, stop in zip(answers, stops, strict=True)]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """For each continuation its loss, and whether a greedy answer begins with it.

        The loss is the negative logarithm of the probability: lmms-eval takes the option with the lowest number.  The
        space before a continuation is left out, because an answering turn begins without one.

        Raises:
            DataError: as in :meth:`generate_until`.
        """
        items, longest = [], []
        for number, request in enumerate(requests):
            prompt, target, to_visual, doc_id, task, split = request.args
            document = self.task_dict[task][split][doc_id]
            said = (target if isinstance(target, str) else target(document)).strip()
            items.append(replace(self._item(number, prompt, document, to_visual, task), options=(said,)))
            longest.append(len(self.parts.encode.tokenizer(said, add_special_tokens=False).input_ids))
        answers = self._answers(items, longest, "both")
        return [
            (-answer.log_likelihoods[0], answer.text == item.options[0])
            for answer, item in zip(answers, items, strict=True)
            if answer.log_likelihoods is not None
        ]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not offered.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("this model answers one question at a time; tasks of several rounds are not offered")

    def _item(
        self, number: int, prompt: str, document: dict[str, Any], to_visual: Callable[[Any], Any], task: str
    ) -> Item:
        visuals = to_visual(document)
        if not isinstance(visuals, list | tuple) or len(visuals) != 1 or not isinstance(visuals[0], str):
            raise DataError(f"the task {task} is not about one video file; this model answers about videos alone")
        question = document.get("question")
        query = question if isinstance(question, str) and question.strip() else prompt
        return Item(str(number), VideoFile(Path(visuals[0])), prompt, query=query)

    def _answers(self, items: Sequence[Item], longest: Sequence[int], scoring: Scoring) -> list[Answer]:
        """In the order of the items; videos one after the other."""
        together: dict[tuple[VideoFile | None, int], list[Item]] = defaultdict(list)
        for item, length in zip(items, longest, strict=True):
            assert not isinstance(item.video, Spliced)
            together[item.video, length].append(item)
        answers: dict[str, Answer] = {}
        for (file, length), some in together.items():
            video = Videos([Group(file, tuple(some), file.path.name if file else None)], self.parts.data.reader)[0]
            if isinstance(video, SkipSample):
                raise DataError(f"{file and file.path}: {video}")
            benchmark = _AsGiven(length)
            ask = Asker(self.model, self.parts.encode, benchmark, scoring, self.seed, self.questions_at_once)
            answers |= {answer.key: answer for answer in ask(some, video)}
        for answer in answers.values():
            if not answer.asked:
                raise DataError(f"question {answer.key}: {answer.reason}: {answer.detail}")
        return [answers[item.key] for item in items]


def _until(text: str, stops: Sequence[str]) -> str:
    for stop in stops:
        text = text.partition(stop)[0] if stop else text
    return text
