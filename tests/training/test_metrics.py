"""What is counted, on batches small enough to count by hand."""

from __future__ import annotations

import torch

from vilamp.interfaces import Selection
from vilamp.models.video_lm import Output
from vilamp.samples import Batch, EncodedQuestion, Question, Video
from vilamp.training.metrics import QuestionMetrics, depth_of, keyframe_recall


def question(kind: str = "colour", evidence: tuple[tuple[float, float], ...] = (), key: str = "key") -> EncodedQuestion:
    empty = torch.zeros(0, dtype=torch.int64)
    return EncodedQuestion(key, Question("q", "a", "q", kind, evidence), empty, empty, empty, 0)


def video(seconds: int = 10) -> Video:
    return Video("v", torch.zeros(seconds, 2, 2, 3, dtype=torch.uint8), torch.arange(seconds, dtype=torch.float64))


def selection(*keyframes: int) -> Selection:
    return Selection(torch.tensor(keyframes))


def output(exact: list[bool], selections: list[Selection | None], tokens: list[int], loss: float = 1.0) -> Output:
    return Output(torch.tensor(loss * 2 * len(exact)), 2 * len(exact), torch.tensor(exact), selections, tokens)


def test_recall_counts_the_spans_that_a_keyframe_lies_in() -> None:
    batch = Batch([video()], [question(evidence=((2.0, 4.0), (6.0, 7.0)))] * 4, [0] * 4)
    picks = [selection(2, 6), selection(3), selection(4, 7), selection(0, 6, 9)]
    result = output([True] * 4, picks, [1] * 4)
    found = [keyframe_recall(batch, result, i) for i in range(4)]
    assert [recall.share for recall in found if recall is not None] == [1.0, 0.5, 0.0, 0.5]


def test_recall_is_none_without_evidence_or_video() -> None:
    batch = Batch([video()], [question(), question(evidence=((0.0, 1.0),))], [0, -1])
    result = output([True, True], [selection(1), None], [1, 0])
    assert [keyframe_recall(batch, result, i) for i in range(2)] == [None, None]


def test_a_span_without_a_sampled_frame_is_no_part_of_the_recall_and_is_counted() -> None:
    """Between the frames of seconds 2 and 3 nothing was sampled; no selector can find it."""
    short, long = (2.2, 2.8), (5.0, 7.0)
    asked = [question(evidence=evidence) for evidence in ((short,), (short, long), (long,), ())]
    batch = Batch([video()], asked, [0] * 4)
    metrics = QuestionMetrics()
    metrics.update(batch, output([True] * 4, [selection(2, 3), selection(6), selection(2), selection(2)], [1] * 4))
    figures, _ = metrics.compute()
    assert figures["keyframe_recall"] == 0.5  # of the second and third question: 1 and 0
    assert figures["evidence_unsampled"] == 2
    metrics.update(Batch([video()], [asked[0]], [0]), output([True], [selection(2)], [1]))
    figures, _ = metrics.compute()
    assert "keyframe_recall" not in figures and figures["evidence_unsampled"] == 1


def test_means_are_over_questions_not_over_batches() -> None:
    metrics = QuestionMetrics()
    first = Batch([video()], [question("colour"), question("shape"), question("colour")], [0, 0, 0])
    metrics.update(first, output([True, False, False], [selection(1)] * 3, [10, 20, 30], loss=1.0))
    metrics.update(Batch([], [question("colour")], [-1]), output([True], [None], [0], loss=5.0))
    assert metrics.compute()[0] == {
        "accuracy": 0.5,
        "accuracy/colour": 2 / 3,
        "accuracy/shape": 0.0,
        "questions": 4,
        "loss": 2.0,  # 6 answer tokens of loss 1 and 2 of loss 5
        "visual_tokens": 20.0,  # of questions about a video
    }
    assert metrics.compute() == ({}, {}), "computing starts afresh"


def test_every_question_is_told_right_or_wrong() -> None:
    metrics = QuestionMetrics()
    batch = Batch([video()], [question(key="v/0"), question(key="v/1")], [0, 0])
    metrics.update(batch, output([True, False], [selection(1)] * 2, [1, 1]))
    metrics.update(Batch([], [question(key="w/0")], [-1]), output([True], [None], [0]))
    assert metrics.compute()[1] == {"v/0": True, "v/1": False, "w/0": True}


def test_depth_is_the_fifth_in_which_the_middle_of_the_evidence_lies() -> None:
    times = torch.arange(101, dtype=torch.float64)
    assert [depth_of([(start, start + 2)], times) for start in (0, 18, 19, 98, 150)] == [
        "0.0-0.2", "0.0-0.2", "0.2-0.4", "0.8-1.0", "0.8-1.0",
    ]  # fmt: skip
    assert depth_of([(0, 10), (90, 100)], times) == "0.4-0.6"
    assert depth_of([], times) is None and depth_of([(0, 0)], times[:1]) == "0.0-0.2"
