"""PyAV, which brings FFmpeg's own libraries: right for every file that FFmpeg reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vilamp.probe import Probe, Source, demux, open_container, translated
from vilamp.video import CHUNK, FrameChunk, VideoDecoder

Stretch = tuple[int | None, list[int]]
"""The frames that are wanted of a stretch of the video, ascending, and the one that decoding begins with.

Frames are known by their timestamp, or by their rank (:attr:`~vilamp.probe.Probe.by_rank`); None is the file's begin.
"""


class PyAVDecoder(VideoDecoder):
    """Decodes as little as the wanted frames need, in the order of the file.

    Where the probe found at which frames decoding can begin, stretches without a wanted frame are read and not decoded,
    nor are frames of H.264 that no other frame refers to.  The pictures are the same, bit for bit.  Should a frame be
    missing then, all is decoded from the beginning.
    """

    name = "pyav"

    def decode(self, source: Source, probe: Probe, times: np.ndarray, size: int) -> Iterator[FrameChunk]:
        """See :meth:`VideoDecoder.decode`."""
        indices = probe.on_display(times)
        pictures = self._pictures(source, probe, indices, size)
        last = np.zeros((size, size, 3), dtype=np.uint8)
        for first in range(0, len(indices), CHUNK):
            part = slice(first, first + CHUNK)
            frames = np.empty((len(indices[part]), size, size, 3), dtype=np.uint8)
            ok = np.ones(len(frames), dtype=bool)
            for place in range(len(frames)):
                picture = next(pictures)
                ok[place] = picture is not None
                last = frames[place] = last if picture is None else picture
            yield FrameChunk(frames, times[part], probe.starts[indices[part]], ok, self.name)

    def _pictures(self, source: Source, probe: Probe, indices: np.ndarray, size: int) -> Iterator[np.ndarray | None]:
        """The picture of each index, None for one that cannot be decoded."""
        done = 0
        if len(probe.entries) and not probe.by_rank:
            for picture in _Walk(probe, size, sparing=True).pictures(source, _stretches(probe, indices)):
                if picture is None:
                    break
                yield picture
                done += 1
        if done < len(indices):
            names = (indices if probe.by_rank else probe.pts[indices])[done:].tolist()
            yield from _Walk(probe, size, sparing=False).pictures(source, [(None, names)])


def _stretches(probe: Probe, indices: np.ndarray) -> list[Stretch]:
    """The wanted frames by the last entry before each."""
    entry_of = np.searchsorted(probe.entries, indices, side="right") - 1
    bounds = np.flatnonzero(np.diff(entry_of)) + 1
    return [
        (None if entry < 0 else int(probe.pts[probe.entries[entry]]), names.tolist())
        for entry, names in zip(
            entry_of[np.append(0, bounds)].tolist(), np.split(probe.pts[indices], bounds), strict=True
        )
    ]


class _Walk:
    """One way through the file.

    Args:
        probe: of the file.
        size: of the pictures.
        sparing: leave out what no wanted frame needs.
    """

    def __init__(self, probe: Probe, size: int, *, sparing: bool) -> None:
        self.probe = probe
        self.size = size
        self.sparing = sparing
        self.scaler = VideoReformatter()
        self.rank = 0
        starts = probe.entries if len(probe.entries) else probe.keyframes
        self.groups = starts if probe.by_rank else probe.pts[starts]  # where damage ends
        self.damaged: set[int] = set()

    def pictures(self, source: Source, stretches: Sequence[Stretch]) -> Iterator[np.ndarray | None]:
        """The picture of each wanted frame of the stretches, None for one that cannot be decoded."""
        with translated(av.FFmpegError, MemoryError), open_container(source) as container:
            stream = container.streams.best("video")
            context = stream.codec_context
            context.thread_count = 1  # several videos are decoded side by side, each by a process of its own
            # A picture that was patched up is no longer what was filmed.
            context.options = {"err_detect": "explode"}
            packets = demux(container, stream)
            for entry, names in stretches:
                wanted = deque(names)
                for frame in self._frames(context, packets, entry, set(names)):
                    name = self._name(frame)
                    # Frames come in the order in which they are shown.  Where they do not, the timestamps are on the
                    # wrong ones, and those are missing too.
                    while name is not None and wanted and wanted[0] < name:
                        wanted.popleft()
                        yield None
                    if wanted and wanted[0] == name:
                        wanted.popleft()
                        yield self._picture(frame, wanted_name=name)
                    if not wanted:
                        break
                yield from [None] * len(wanted)
                context.flush_buffers()

    def _frames(self, context: Any, packets: Iterator[Any], entry: int | None, wanted: set[int]) -> Iterator[Any]:
        """The decoded frames of one stretch, up to the last one that is wanted."""
        for packet in packets:
            time = packet.pts if packet.pts is not None else packet.dts
            if entry is not None and not (packet.is_keyframe and time == entry):
                continue
            entry = None
            if self.sparing and self.probe.codec == "h264":
                context.skip_frame = "DEFAULT" if time in wanted else "NONREF"
            yield from self._decoded(context, packet, time)
            wanted.discard(time)
            if self.sparing and not wanted:
                yield from self._decoded(context, None, time)
                return

    def _decoded(self, context: Any, packet: Any, time: int | None) -> list[Any]:
        """What the decoder hands out for a packet; where it fails, all is damaged until decoding can begin anew."""
        try:
            frames = context.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            frames = []
        else:
            if packet is None or not packet.is_corrupt:
                return frames
        self.damaged.add(self._group(self.rank if self.probe.by_rank or time is None else time))
        return frames

    def _group(self, name: int) -> int:
        """Which of the groups of pictures a frame belongs to."""
        return int(np.searchsorted(self.groups, name, side="right"))

    def _name(self, frame: Any) -> int | None:
        if self.probe.by_rank:
            self.rank += 1
            return self.rank - 1
        return frame.pts if frame.pts is not None else frame.dts

    def _picture(self, frame: Any, wanted_name: int) -> np.ndarray | None:
        if frame.is_corrupt or self._group(wanted_name) in self.damaged:
            return None
        scaled = self.scaler.reformat(frame, self.size, self.size, "rgb24", interpolation="BICUBIC")
        # The picture is square by now, so that turning it is the same as turning it before scaling.
        return np.rot90(scaled.to_ndarray(), round(frame.rotation / 90))
