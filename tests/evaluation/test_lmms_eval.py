"""The model of lmms-eval, inside lmms-eval: a task of our own over two clips, offline.

Skipped where the extra is not installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import miniatures
import pytest

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("lmms_eval") is None,
        reason="lmms-eval is not installed: pip install -e '.[lmms-eval]'",
    ),
    pytest.mark.filterwarnings("ignore"),  # what its many imports have to say is not ours to mend
]

TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: {kind}
doc_to_visual: !function visual.to_visual
doc_to_text: "{{{{question}}}}\\n{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
{more}
"""
GENERATED = """\
generation_kwargs: {max_new_tokens: 4, do_sample: false, temperature: 0}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
CHOSEN = """\
doc_to_choice: "{{options}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture(scope="module")
def tasks(questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions about the two whole clips as tasks, one for each way of answering."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"question": f"What shape is number {number}?", "choices": "A or B", "options": ["A", "B"],
         "answer": number % 2, "video": str(questions / f"{video}.mp4")}
        for number in range(3) for video in ("a", "b")
    ]  # fmt: skip
    miniatures.write_lines(folder / "own.jsonl", rows)
    for name, kind, more in (("own_said", "generate_until", GENERATED), ("own_chosen", "multiple_choice", CHOSEN)):
        text = TASK.format(name=name, file=folder / "own.jsonl", kind=kind, more=more)
        (folder / f"{name}.yaml").write_text(text)
    (folder / "visual.py").write_text("def to_visual(doc):\n    return [doc['video']]\n")
    return folder


def _evaluate(checkpoint: Path, tasks: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for key in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(key, "1")
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks))
    found: dict[str, Any] = simple_evaluate(
        model="vilamp",
        model_args=f"checkpoint={checkpoint},max_frames=12",
        tasks=[name],
        task_manager=manager,
        device="cpu",
        log_samples=True,
    )
    return found


def test_lmms_eval_finds_the_model_by_its_name() -> None:
    from lmms_eval.models import get_model

    assert get_model("vilamp").__module__ == "vilamp.evaluation.lmms_model"


def test_generated_answers_are_scored(checkpoint: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _evaluate(checkpoint, tasks, "own_said", monkeypatch)
    said = [sample["filtered_resps"] for sample in found["samples"]["own_said"]]
    assert len(said) == 6 and all(said)
    right = [sample["exact_match"] for sample in found["samples"]["own_said"]]
    assert found["results"]["own_said"]["exact_match,none"] == sum(right) / 6


def test_the_likeliest_option_is_chosen(checkpoint: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _evaluate(checkpoint, tasks, "own_chosen", monkeypatch)
    samples = found["samples"]["own_chosen"]
    assert len(samples) == 6
    for sample in samples:
        first, second = (loss for loss, _ in sample["filtered_resps"])
        assert first > 0 and second > 0, "losses, of which the lowest is taken"
        assert sample["acc"] == float((second < first) == bool(sample["doc"]["answer"]))
