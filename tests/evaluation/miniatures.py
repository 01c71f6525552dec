"""A few invented questions in each benchmark's official file format, with clips that show numbers.

Nothing in them is from the benchmarks; only names of files and fields, types and quirks are.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from vilamp.testing.barcodes import write_video

SECONDS = 12


@functools.cache
def clip() -> bytes:
    """Twelve seconds at two frames a second."""
    return write_video(list(range(2 * SECONDS)), Fraction(1, 2))


def put_clips(folder: Path, names: Iterable[str]) -> None:
    """Write the clip under these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(clip())


def write_json(path: Path, content: Any) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """The same as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


SRT = """1
00:00:00,000 --> 00:00:02,500
<font color="white" size=".72c">A red door opens.</font>

2
00:00:02,600 --> 00:00:02,900
Between two frames.

3
00:00:03,000 --> 00:00:05,000
<font color="white" size=".72c">Who is
there?</font>
"""


def videomme_rows() -> list[dict[str, Any]]:
    """Three videos with two questions each."""
    rows = []
    for number, (duration, name) in enumerate([("short", "aaa"), ("medium", "b-b"), ("long", "_cc")], 1):
        for place, answer in ((1, "B"), (2, "D")):
            rows.append(
                {
                    "video_id": f"{number:03}",
                    "duration": duration,
                    "domain": "Knowledge" if number < 3 else "Sports",
                    "sub_category": "Doors",
                    "url": "https://example.org/",
                    "videoID": name,
                    "question_id": f"{number:03}-{place}",
                    "task_type": "Counting" if place == 1 else "OCR",
                    "question": f"What is shown at place {place}?",
                    "options": ["A. A door.", "B. A window.", "C. A roof.", "D. None."],
                    "answer": answer,
                }
            )
    return rows


def write_videomme(root: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """With clips of the first two videos, one of them as .MP4, and subtitles of the first."""
    (root / "videomme").mkdir(parents=True)
    table = pa.Table.from_pylist(videomme_rows() if rows is None else rows)
    parquet.write_table(table, root / "videomme" / "test-00000-of-00001.parquet")
    put_clips(root / "data", ["aaa.mp4", "b-b.MP4"])
    (root / "subtitle").mkdir()
    (root / "subtitle" / "aaa.srt").write_text(SRT)
    return root


def longvideobench_rows() -> list[dict[str, Any]]:
    """Four questions about three videos, with three, four and five candidates."""
    common = {"topic_category": "Doors", "level": "L1-Perception", "starting_timestamp_for_subtitles": 100.0}
    kinds = [("a", 15, "S2E", 3, 2), ("a", 15, "T3E", 4, 0), ("b", 600, "S2E", 5, 4), ("c", 3600, "TAA", 4, 1)]
    return [
        {
            "video_id": name,
            "id": f"{name}_{number}",
            "video_path": f"{name}.mp4",
            "subtitle_path": f"{name}_en.json",
            "question": f"What is said in case {number}?",
            "candidates": ["yes", "no", "perhaps", "nothing", "never"][:count],
            "correct_choice": gold,
            "duration": float(SECONDS),
            "duration_group": group,
            "question_category": category,
            **common,
        }
        for number, (name, group, category, count, gold) in enumerate(kinds)
    ]


LVB_SUBTITLES = {
    "a_en.json": [
        {"timestamp": [103.2, 105.8], "text": "Second."},
        {"timestamp": [100.5, 102.5], "text": "First."},
        {"timestamp": [107.25, 107.45], "text": "Widened to a second, and still between frames?"},
        {"timestamp": [111.0, None], "text": "Its end is null."},
    ],
    "b_en.json": [{"start": "00:01:42.500", "end": "00:01:44.500", "line": "By the clock."}],
}


def write_longvideobench(root: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """With clips of the first two videos and their subtitles, one file of each shape."""
    write_json(root / "lvb_val.json", longvideobench_rows() if rows is None else rows)
    put_clips(root / "videos", ["a.mp4", "b.mp4"])
    for name, cues in LVB_SUBTITLES.items():
        write_json(root / "subtitles" / name, cues)
    return root


def mlvu_dev_files() -> dict[str, list[dict[str, Any]]]:
    """Three of the seven files, with each of their quirks."""

    def row(kind: str, video: str, answer: str, candidates: list[str]) -> dict[str, Any]:
        question = f"Which one is it in {video}?" if candidates else ""
        common = {"video": video, "duration": 12.5, "question": question}
        return common | {"candidates": candidates, "answer": answer, "question_type": kind}

    four = ["cat", "dog", "cow", "hen"]
    return {
        "1_plotQA": [row("plotQA", "1.mp4", "dog", four), row("plotQA", "1.mp4", "hen", four)],
        "2_needle": [
            row("findNeedle", "needle_1.mp4", "cat", four),
            row("findNeedle", "needle_1.mp4", "not among them", four),
            row("findNeedle", "needle_2.mp4", "cow", ["cat", "cow", "cow", "hen"]),
        ],
        "7_topic_reasoning": [
            row("topic_reasoning", "AR_1.mp4", "hen", four),
            row("topic_reasoning", "AR_2.mp4", "", []),
        ],
    }


def write_mlvu_dev(root: Path, files: dict[str, list[dict[str, Any]]] | None = None) -> Path:
    """With one clip: names repeat across the tasks' folders."""
    for stem, rows in (mlvu_dev_files() if files is None else files).items():
        write_json(root / "json" / f"{stem}.json", rows)
    put_clips(root / "video", ["1_plotQA/1.mp4"])
    return root


def write_mlvu_test(root: Path) -> Path:
    """Three questions with six candidates, one to generate, and their answers in another file and order."""
    six = ["one", "two", "three", "four", "five", "six"]
    rows = [
        {"question_id": f"{name}_0", "question_type": kind, "video": f"test_{name}-0.mp4", "question": "How many?",
         "candidates": six}
        for name, kind in (("AR", "anomaly_reco"), ("C", "count"), ("SQA", "sportsQA"))
    ]  # fmt: skip
    summary = {"question_id": "SUM_0", "question_type": "summary", "video": "test_SUM-0.mp4", "question": "Tell it."}
    write_json(root / "test_question.json", [*rows, summary])
    answers = [
        {**row, "duration": 12.0, "answer": text} for row, text in zip(rows, ("six", "one", "five"), strict=True)
    ]
    write_json(root / "test-ground-truth" / "test_mcq_gt.json", answers[::-1])
    return root


def lvbench_rows() -> list[dict[str, Any]]:
    """Two videos, three questions, in one or two types each."""

    def question(uid: int, answer: str, types: list[str]) -> dict[str, Any]:
        text = f"What year appears in case {uid}?\n(A) 1636\n(B) 1366\n(C) 1363\n(D) 1633"
        return {
            "uid": str(uid),
            "question": text,
            "answer": answer,
            "question_type": types,
            "time_reference": "00:01-00:03",
        }

    info = {"duration_minutes": 0.2, "fps": 2.0, "resolution": {"width": 160, "height": 64}}
    first = [question(1, "D", ["key information retrieval", "reasoning"]), question(2, "A", ["reasoning"])]
    second = [question(3, "C", ["temporal grounding"])]
    return [
        {"key": "Cm73ma6Ibcs", "type": "cartoon", "video_info": info, "qa": first},
        {"key": "-b_Zd", "type": "live", "video_info": info, "qa": second},
    ]


def write_lvbench(root: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """With a clip of the first video; the other one is gone from where it was."""
    write_lines(root / "video_info.meta.jsonl", lvbench_rows() if rows is None else rows)
    put_clips(root / "videos", ["Cm73ma6Ibcs.mp4"])
    return root


def write_egoschema(root: Path) -> Path:
    """Three questions, two of them with public answers."""
    texts = ["C walks.", "C sits.", "C reads.", "C waits.", "C sings."]
    options = {f"option {number}": text for number, text in enumerate(texts)}
    rows = [{"q_uid": f"uid-{n}", "google_drive_id": "x", "question": f"What does C do in {n}?", **options}
            for n in range(3)]  # fmt: skip
    write_json(root / "questions.json", rows)
    write_json(root / "subset_answers.json", {"uid-0": 3, "uid-2": 0})
    put_clips(root / "videos", ["uid-0.mp4", "uid-2.mp4"])
    return root


def write_activitynetqa(root: Path, split: str = "test") -> Path:
    """Four questions about two videos, one of whose names begins with a dash; the answers in another order."""
    names = ["-abc", "-abc", "d_e", "d_e"]
    asked = [
        {"video_name": name, "question": f"what is it in {number}", "question_id": f"v_{name}_{number}"}
        for number, name in enumerate(names)
    ]
    answers = [("yes", 3), ("swim", 0), ("the red one", 4), ("2", 7)]
    rows = [
        {"answer": answer, "type": kind, "question_id": row["question_id"]}
        for row, (answer, kind) in zip(asked, answers, strict=True)
    ]
    write_json(root / f"{split}_q.json", asked)
    write_json(root / f"{split}_a.json", rows[::-1])
    put_clips(root / "videos", ["v_-abc.mp4", "v_d_e.mkv"])
    return root
