"""One sample from the index to decoded frames, and several of them to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch.utils.data import Dataset

from vilamp.data.annotations import MAX_BYTES, Annotation, parse_annotation
from vilamp.data.decode import VideoReader
from vilamp.data.order import Place, question_seed
from vilamp.data.shard_sample import ShardSample
from vilamp.samples import Batch, EncodedQuestion, EncodeQuestion, Question, Skip, SkipSample, Video


@dataclass(frozen=True)
class AskedQuestion:
    """A question with what its encoding needs.

    Attributes:
        key: ``<sample key>/<its number in the file>``.
        question: as in the file.
        seed: of its random choices in this epoch.
    """

    key: str
    question: Question
    seed: int


@dataclass(frozen=True)
class LoadedSample:
    """One sample as it comes from a worker.

    Attributes:
        shard: where it stood.
        video: None for text-only questions.
        questions: those asked in this epoch.
    """

    shard: str
    video: Video | None
    questions: list[AskedQuestion]


class VideoDataset(Dataset[LoadedSample | Skip]):
    """The samples of an index, decoded on access.

    Args:
        samples: the index.
        reader: reads the videos.
        seed: of the random choices made for the questions.
        max_questions: of one video in one epoch; later epochs go on where this one stopped.  None asks all.
    """

    def __init__(
        self, samples: Sequence[ShardSample], reader: VideoReader, seed: int, max_questions: int | None = None
    ) -> None:
        self.samples = samples
        self.reader = reader
        self.seed = seed
        self.max_questions = max_questions

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, place: Place) -> LoadedSample | Skip:
        """Read a sample; one that cannot be used is returned as a :class:`~vilamp.samples.Skip`."""
        sample = self.samples[place.number]
        try:
            annotation = parse_annotation(sample.read("json", MAX_BYTES))
            video = _read_video(sample, annotation, self.reader)
        except SkipSample as skip:
            return Skip(sample.key, sample.shard, skip.reason, skip.detail)
        numbers = questions_of_epoch(len(annotation.questions), self.max_questions, place.epoch)
        keys = [f"{sample.key}/{number}" for number in numbers]
        questions = [
            AskedQuestion(key, annotation.questions[number], question_seed(self.seed, place.epoch, key))
            for key, number in zip(keys, numbers, strict=True)
        ]
        return LoadedSample(sample.shard, video, questions)


def _read_video(sample: ShardSample, annotation: Annotation, reader: VideoReader) -> Video | None:
    extension = sample.video(annotation)
    return None if extension is None else reader.read(sample.source(extension, reader.spool), sample.key, sample.shard)


def questions_of_epoch(total: int, most: int | None, epoch: int) -> list[int]:
    """Which of a sample's questions are asked: all, or a window of ``most`` that moves on by itself every epoch."""
    if most is None or total <= most:
        return list(range(total))
    return sorted((epoch * most + i) % total for i in range(most))


class Collate:
    """Makes a batch of what the dataset gave.

    Args:
        encode: turns a question into token ids.
    """

    def __init__(self, encode: EncodeQuestion) -> None:
        self.encode = encode

    def __call__(self, samples: Sequence[LoadedSample | Skip]) -> Batch:
        """Encode the questions; one that does not fit is skipped alone, a video with no question left is dropped."""
        batch, lost = Batch([], [], []), 0.0
        for sample in samples:
            if isinstance(sample, Skip):
                batch.skipped.append(sample)
                lost += 1
                continue
            encoded = [question for asked in sample.questions if (question := self._encode(asked, sample, batch))]
            batch.questions.extend(encoded)
            batch.video_of.extend([-1 if sample.video is None else len(batch.videos)] * len(encoded))
            if encoded and sample.video is not None:
                batch.videos.append(sample.video)
            lost += 1 - len(encoded) / len(sample.questions)
        return replace(batch, samples=len(samples), lost=lost)

    def _encode(self, asked: AskedQuestion, sample: LoadedSample, batch: Batch) -> EncodedQuestion | None:
        try:
            return self.encode(asked.question, asked.key, sample.video is not None, asked.seed)
        except SkipSample as skip:
            batch.skipped.append(Skip(asked.key, sample.shard, skip.reason, skip.detail))
            return None
