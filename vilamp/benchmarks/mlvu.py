"""MLVU (Zhou et al., 2024, arXiv 2406.04264): the multiple-choice tasks of the dev set or of the test set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from vilamp.benchmark import LETTERS as ALPHABET
from vilamp.benchmark import ChoiceBenchmark, Graded, Item, Prompt, mean_of_groups
from vilamp.benchmarks._files import find_video, read_rows, refuse, require_count, text_list
from vilamp.benchmarks._letters import before_bracket, lettered
from vilamp.errors import ConfigError, DataError

Split = Literal["dev", "test"]
LETTERS = ALPHABET[:6]
DEV = {  # file -> (question_type in it, rows)
    "1_plotQA": ("plotQA", 539),
    "2_needle": ("findNeedle", 355),
    "3_ego": ("ego", 352),
    "4_count": ("count", 206),
    "5_order": ("order", 259),
    "6_anomaly_reco": ("anomaly_reco", 200),
    "7_topic_reasoning": ("topic_reasoning", 264),
}
TEST_TASKS, TEST_QUESTIONS = 9, 502
TEST, TRUTH = "test_question.json", "test-ground-truth/test_mcq_gt.json"
GENERATION = ("subPlot", "summary", "sub_scene")
GET = "download huggingface.co/datasets/MLVU/{0} and set benchmark.root to the folder that holds {1}"
SYSTEM = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, select the best option "
    "that accurately addresses the question."
)
KINDS: dict[str, Any] = {"video": str, "question": str, "candidates": list, "question_type": str}


class MLVU(ChoiceBenchmark):
    """Questions with four options (dev) or up to six (test) about videos of three minutes to nine hours.

    ``m_avg`` is the authors' score: the unweighted mean over the tasks.  Their other one, G-Avg, needs a judge over the
    network and is not computed.  A candidate that stands there twice is right in both places.

    Args:
        root: the folder with the question files (those of the dev set may be in ``json/``) and ``video/``.
        split: ``dev`` or ``test``; their scores are never mixed.
        partial: take files with fewer questions than were published.
        max_new_tokens: of an answer.
    """

    headline = "m_avg"

    def __init__(self, root: str, split: Split = "dev", partial: bool = False, max_new_tokens: int = 32) -> None:
        super().__init__(max_new_tokens)
        if split not in get_args(Split):
            raise ConfigError(f"benchmark.split must be {' or '.join(get_args(Split))}, got {split!r}")
        self.root = Path(root)
        self.split = split
        self.partial = partial

    def items(self) -> list[Item]:
        """As :meth:`vilamp.benchmark.Benchmark.items`."""
        items = self._dev() if self.split == "dev" else self._test()
        self.notes.append("multiple choice only: G-Avg (sub-scene captioning, summary) needs a judge")
        nameless = [item.key for item in items if not item.gold]
        if nameless:
            self.notes.append(f"the answer of {', '.join(nameless)} is none of its candidates: always wrong")
        return items

    def _dev(self) -> list[Item]:
        items = []
        for stem, (task, published) in DEV.items():
            folder = self.root / "json" if (self.root / "json").is_dir() else self.root
            path, get = folder / f"{stem}.json", GET.format("MVLU", "1_plotQA.json ... 7_topic_reasoning.json")
            if self.partial and not path.is_file():
                self.notes.append(f"{stem}: not there")
                continue
            rows = read_rows(path, {"answer": str, **KINDS}, get)
            blank = [number for number, row in enumerate(rows) if not row["candidates"] and not row["answer"].strip()]
            if blank:
                self.notes.append(f"{stem}: left out {len(blank)} blank row(s): {', '.join(map(str, blank))}")
            asked = {number: row for number, row in enumerate(rows) if number not in blank}
            refuse(path, [p for number, row in asked.items() if (p := _problem(row, number, task))], get)
            require_count(stem, len(rows), published, self.partial, self.notes)
            items += [self._item(f"{stem}/{number}", row, stem) for number, row in asked.items()]
        if not items:
            raise DataError(f"benchmark.root={self.root}: there is no question file; {get}")
        return items

    def _test(self) -> list[Item]:
        path, get = self.root / TEST, GET.format("MLVU_Test", TEST)
        rows = read_rows(path, {"question_id": str, "question_type": str}, get)
        rows = [row for row in rows if row["question_type"] not in GENERATION]
        refuse(path, [p for row in rows if (p := _problem(row, row["question_id"], row["question_type"]))], get)
        require_count(TEST, len(rows), TEST_QUESTIONS, self.partial, self.notes)
        tasks = {row["question_type"] for row in rows}
        if len(tasks) != TEST_TASKS and not self.partial:
            raise DataError(f"{path}: {len(tasks)} of {TEST_TASKS} tasks: {', '.join(sorted(tasks))}; {get}")
        truth = self.root / TRUTH
        answers = {
            row["question_id"]: row["answer"] for row in read_rows(truth, {"question_id": str, "answer": str}, get)
        }
        lacking = [row["question_id"] for row in rows if row["question_id"] not in answers]
        refuse(truth, [f"no answer to {key}" for key in lacking], get)
        return [self._item(row["question_id"], {**row, "answer": answers[row["question_id"]]}, "") for row in rows]

    def _item(self, key: str, row: dict[str, Any], folder: str) -> Item:
        options = tuple(row["candidates"])
        return Item(
            key=key,
            video=find_video(self.root / "video" / folder, row["video"]),
            question=row["question"],
            options=options,
            gold=tuple(number for number, option in enumerate(options) if option == row["answer"]),
            groups={"task": (row["question_type"],)},
        )

    def ask(self, item: Item, times: Sequence[float]) -> Prompt:
        """The prompt of the authors, which begins the answer itself."""
        lines = [f"Question: {item.question}", "Options:", *lettered(item.options, "({0}) {1}")]
        text = "\n".join([*lines, "Only give the best option."])
        return Prompt(text, SYSTEM, prefill="Best Option: (", continuations=tuple(LETTERS[: len(item.options)]))

    def choose(self, item: Item, text: str) -> int | None:
        """The authors' rule: one letter before the first closing bracket, or nothing but a letter."""
        return before_bracket(text, LETTERS)

    def figures(self, graded: Sequence[Graded]) -> dict[str, float]:
        """With ``m_avg``."""
        figures = super().figures(graded)
        return figures | {"m_avg": mean_of_groups(figures, "task")}


def _problem(row: dict[str, Any], name: int | str, task: str) -> str:
    missing = [field for field, kind in KINDS.items() if not isinstance(row.get(field), kind)]
    if missing:
        return f"{name}: {', '.join(missing)} is missing or of another type"
    options = text_list(row["candidates"])
    if options is None or not 2 <= len(options) <= len(LETTERS):
        return f"{name}: candidates should be two to six texts, got {repr(row['candidates'])[:80]}"
    return "" if row["question_type"] == task else f"{name}: question_type is {row['question_type']!r}, not {task!r}"
