"""Shards that are no local files: a real HTTP server, fsspec's memory, and commands."""

from __future__ import annotations

import io
import logging
import multiprocessing
import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from tars import annotation, write_tar
from torch.utils.data import DataLoader

from vilamp.data import shard_sample, sources
from vilamp.data.dataset import LoadedSample, VideoDataset
from vilamp.data.decode import VideoReader
from vilamp.data.frames import FrameSettings
from vilamp.data.index_file import index_path, to_bytes
from vilamp.data.isolation import Budget, can_isolate
from vilamp.data.order import Place
from vilamp.data.packing.indexing import index_foreign_shard
from vilamp.data.patterns import expand_patterns
from vilamp.data.shard_sample import ShardSample
from vilamp.data.shards import index_shard, index_shards
from vilamp.data.sources import SourceError, fetch, read_range
from vilamp.data.spool import Spool
from vilamp.decoders.pyav import PyAVDecoder
from vilamp.errors import DataError, OutputError
from vilamp.probe import FileRange, open_source
from vilamp.samples import Skip, SkipSample
from vilamp.testing.barcodes import write_video

LINUX = pytest.mark.skipif(not can_isolate(), reason="only Linux gives open files a path, and isolates decoding")
MEMBERS = {f"{key}.{name}": content for key in "abc" for name, content in
           (("json", annotation(f"{key}?")), ("mp4", key.encode() * 700))}  # fmt: skip


class _Server(ThreadingHTTPServer):
    """Serves a folder, and notes what was asked for."""

    daemon_threads = True

    def __init__(self, folder: Path, handler: type[SimpleHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        self.asked: list[tuple[str, str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _WithoutRanges(SimpleHTTPRequestHandler):
    """Sends whole files only, as Python's own server does."""

    server: _Server

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def send_head(self) -> Any:
        """Note the request."""
        self.server.asked.append((self.command, self.path, self.headers.get("Range", "")))
        return super().send_head()


class _WithRanges(_WithoutRanges):
    """Sends the part of a file that is asked for, as object stores do."""

    def send_head(self) -> Any:
        """Answer a request with a range."""
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or not path.is_file():
            return super().send_head()
        self.server.asked.append((self.command, self.path, asked[0]))
        content = path.read_bytes()
        part = content[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start a server over ``tmp_path / "there"``."""
    monkeypatch.setattr(sources, "_FIRST_WAIT", 0.0)
    (tmp_path / "there").mkdir()
    servers: list[_Server] = []

    def start(handler: type[SimpleHTTPRequestHandler] = _WithRanges) -> _Server:
        servers.append(_Server(tmp_path / "there", handler))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _shard(folder: Path, name: str = "x.tar", index: bool = True) -> Path:
    shard = write_tar(folder / name, MEMBERS.items())
    if index:
        Path(index_path(shard)).write_bytes(to_bytes(index_foreign_shard(str(shard))[0]))
    return shard


def _contents(samples: list[ShardSample]) -> dict[str, bytes]:
    return {f"{s.key}.{extension}": s.read(extension) for s in samples for extension in s.members}


def test_with_an_index_only_what_is_needed_is_transferred(tmp_path: Path, serve: Any) -> None:
    shard = _shard(tmp_path / "there")
    server = serve()
    index = index_shard(f"{server.url}/x.tar", tmp_path / "cache")
    assert index.verified
    server.asked.clear()
    place = index.samples[1].members["mp4"]
    assert index.samples[1].read("mp4") == MEMBERS["b.mp4"]
    assert server.asked == [("GET", "/x.tar", f"bytes={place.offset}-{place.offset + place.size - 1}")]
    assert _contents(index.samples) == MEMBERS
    assert index.samples[1].source("mp4") == MEMBERS["b.mp4"], "it lies nowhere else"
    assert not (tmp_path / "cache").exists()
    content = bytearray(shard.read_bytes())
    content[place.offset] ^= 1
    shard.write_bytes(content)
    with pytest.raises(SkipSample) as skip:
        index.samples[1].read("mp4")
    assert skip.value.reason == "checksum"


def _left_open(folder: Path) -> int:
    """How many files without a name this process has open in a folder."""
    links = list(Path("/proc/self/fd").iterdir())
    return sum(str(folder) in str(link.readlink()) for link in links if link.is_symlink())


@LINUX
def test_a_large_video_goes_into_a_file_piece_by_piece(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_sample, "TRANSFER", 300)
    _shard(tmp_path / "there")
    server = serve()
    sample = index_shard(f"{server.url}/x.tar").samples[1]
    start, folder = sample.members["mp4"].offset, tmp_path / "files"
    assert sample.source("mp4", Spool(700 / 2**30, str(folder))) == MEMBERS["b.mp4"], "it is not larger than the limit"
    server.asked.clear()
    source = sample.source("mp4", Spool(699 / 2**30, str(folder)))
    assert isinstance(source, FileRange)
    ends = [(0, 299), (300, 599), (600, 699)]
    assert [part for _, _, part in server.asked] == [f"bytes={start + a}-{start + b}" for a, b in ends]
    with open_source(source) as file:
        assert file.read() == MEMBERS["b.mp4"]
    assert _left_open(folder) == 1 and not list(folder.iterdir())
    del source, file
    assert _left_open(folder) == 0


@LINUX
def test_a_large_video_that_is_not_whole_is_skipped_and_leaves_no_file(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_sample, "TRANSFER", 300)
    shard = _shard(tmp_path / "there")
    server, spool = serve(), Spool(0, str(tmp_path / "files"))
    sample = index_shard(f"{server.url}/x.tar").samples[2]
    whole, place = shard.read_bytes(), sample.members["mp4"]
    damaged = bytearray(whole)
    damaged[place.offset + 500] ^= 1
    for content, reason in ((damaged, "checksum"), (whole[: place.offset + 500], "damaged_shard")):
        shard.write_bytes(content)
        with pytest.raises(SkipSample) as skip:
            sample.source("mp4", spool)
        assert skip.value.reason == reason
    shard.write_bytes(whole)
    with pytest.raises(OutputError, match=r"set data\.frames_dir to a folder that can be written"):
        sample.source("mp4", Spool(0, str(shard / "files")))
    server.shutdown()
    server.server_close()
    with pytest.raises(SkipSample) as skip:
        sample.source("mp4", spool)
    assert skip.value.reason == "unreachable"
    assert _left_open(tmp_path / "files") == 0


@LINUX
@pytest.mark.parametrize("budget", [Budget(), Budget(60, 1)], ids=["here", "isolated"])
def test_a_video_from_a_server_has_the_same_frames_from_a_file(budget: Budget, tmp_path: Path, serve: Any) -> None:
    clip = write_video([512 * i for i in range(40)], Fraction(1, 12_800))
    shard = write_tar(tmp_path / "there" / "x.tar", [("a.json", annotation("a?")), ("a.mp4", clip)])
    Path(index_path(shard)).write_bytes(to_bytes(index_foreign_shard(str(shard))[0]))
    samples = index_shard(f"{serve().url}/x.tar").samples
    settings, loaded = FrameSettings(5.0, 100, 80), []
    for gib in (None, 0):
        reader = VideoReader(PyAVDecoder(), settings, budget, Spool(gib, str(tmp_path / "files")))
        loaded.append(VideoDataset(samples, reader, seed=0)[Place(0, 0)])
    in_memory, in_file = (one.video.frames[:] for one in loaded if isinstance(one, LoadedSample) and one.video)
    assert torch.equal(in_memory, in_file) and len(in_file) == 9
    del loaded
    assert _left_open(tmp_path / "files") == 0


def test_without_an_index_a_shard_is_copied_once(tmp_path: Path, serve: Any) -> None:
    shard = _shard(tmp_path / "there", index=False)
    server = serve()
    url = f"{server.url}/x.tar"
    for _ in range(2):
        index = index_shard(url, tmp_path / "cache")
        assert not index.verified
        assert {sample.shard for sample in index.samples} == {url}
        assert _contents(index.samples) == MEMBERS
    assert [path for method, path, _ in server.asked if method == "GET" and path == "/x.tar"] == ["/x.tar"]
    shard.write_bytes(shard.read_bytes() + bytes(10240))
    assert _contents(index_shard(url, tmp_path / "cache").samples) == MEMBERS
    assert [path for method, path, _ in server.asked if method == "GET" and path == "/x.tar"] == ["/x.tar"] * 2
    assert not list((tmp_path / "cache").glob("*.partial-*"))


def test_a_server_that_sends_whole_files_only_is_asked_once_for_each(tmp_path: Path, serve: Any) -> None:
    _shard(tmp_path / "there")
    server = serve(_WithoutRanges)
    index = index_shard(f"{server.url}/x.tar", tmp_path / "cache")
    assert index.verified
    assert _contents(index.samples) == MEMBERS
    before = len(server.asked)
    assert _contents(index.samples) == MEMBERS
    assert len(server.asked) == before


def _unchanged(items: list[Any]) -> Any:
    return items[0]


class _Videos:
    def __init__(self, samples: list[ShardSample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> tuple[str, bytes]:
        return self.samples[number].key, self.samples[number].read("mp4")


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
def test_workers_read_from_a_server_that_their_parent_has_asked(method: str, tmp_path: Path, serve: Any) -> None:
    _shard(tmp_path / "there")
    samples = index_shard(f"{serve().url}/x.tar").samples
    assert samples[0].read("mp4") == MEMBERS["a.mp4"]
    loader = DataLoader(
        _Videos(samples),  # type: ignore[arg-type]
        batch_size=1,
        num_workers=1,
        collate_fn=_unchanged,
        multiprocessing_context=method,
    )
    assert dict(loader) == {key: MEMBERS[f"{key}.mp4"] for key in "abc"}


def test_a_server_that_is_gone_costs_the_samples_that_it_has(tmp_path: Path, serve: Any) -> None:
    _shard(tmp_path / "there")
    server = serve()
    index = index_shard(f"{server.url}/x.tar")
    server.shutdown()
    server.server_close()
    for sample in index.samples:
        with pytest.raises(SkipSample, match=r"x\.tar cannot be read") as skip:
            sample.read("json")
        assert skip.value.reason == "unreachable"
    with pytest.raises(DataError, match=r"data\.train: http.*x\.tar.* cannot be read"):
        index_shards([f"{server.url}/x.tar"], "data.train", tmp_path / "cache")


def test_an_answer_that_fails_once_is_asked_for_again(tmp_path: Path, serve: Any) -> None:
    class Moody(_WithRanges):
        def send_head(self) -> Any:
            if len(self.server.asked) % 2 == 0:
                self.server.asked.append((self.command, self.path, "refused"))
                return self.send_error(503)
            return super().send_head()

    _shard(tmp_path / "there")
    url = f"{serve(Moody).url}/x.tar"
    assert read_range(url, 0, 6) == b"a.json"


def test_a_server_that_hangs_is_given_up_and_a_long_transfer_is_not(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    awake = threading.Event()

    class Asleep(_WithRanges):
        def send_head(self) -> Any:
            awake.wait()
            return super().send_head()

    monkeypatch.setattr(sources, "SILENCE", 0.1)
    try:
        with pytest.raises(SourceError, match=r"x\.tar cannot be read: \w*Timeout"):
            read_range(f"{serve(Asleep).url}/x.tar", 0, 6)
    finally:
        awake.set()
    monkeypatch.setitem(fsspec.config.conf, "https", {"client_kwargs": {"trust_env": True}})
    options = sources._options("simplecache::https://host/x.tar?from=http://other")
    assert options.keys() == {"https"} and options["https"]["client_kwargs"]["trust_env"] is True
    assert options["https"]["client_kwargs"]["timeout"].total is None
    assert sources._options("s3://bucket/x.tar") == {}


def test_a_missing_shard_stops_the_run(tmp_path: Path, serve: Any) -> None:
    url = serve().url
    with pytest.raises(DataError, match=r"data\.val: .*/gone\.tar cannot be read"):
        index_shards([f"{url}/gone.tar"], "data.val", tmp_path / "cache")


def test_a_signature_is_sent_and_never_shown(tmp_path: Path, serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in logs and lists nor in the names of copies."""
    caplog.set_level(logging.INFO, "vilamp")
    _shard(tmp_path / "there")
    (tmp_path / "there" / "bare.tar").write_bytes((tmp_path / "there" / "x.tar").read_bytes())
    server, signature = serve(), "?sig=topsecret"
    bare = f"{server.url}/bare.tar{signature}"
    index = index_shards([f"{server.url}/x.tar{signature}", bare], "data.train", tmp_path / "cache")
    assert {path.partition("?")[2] for _, path, _ in server.asked} == {"sig=topsecret"}
    server.shutdown()
    server.server_close()
    samples = VideoDataset(index.samples, VideoReader(PyAVDecoder(), FrameSettings(1.0, 4, 32)), seed=0)
    skips = [skip for number in range(len(samples)) if isinstance(skip := samples[Place(number, 0)], Skip)]
    assert {skip.reason for skip in skips} == {"unreachable", "decode"}
    with pytest.raises(DataError) as stopped:
        index_shards([bare], "data.train", tmp_path / "cache")
    told = [*caplog.messages, str(skips), str(stopped.value), *map(str, tmp_path.rglob("*"))]
    assert "bare.tar?~" in str(told) and "topsecret" not in str(told)


def test_patterns_of_urls(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for name in ("/sets/a-000.tar", "/sets/a-001.tar", "/sets/b.tar"):
        system.pipe(name, b"")
    try:
        found = expand_patterns("memory://sets/a-*.tar", "data.train", remote=True)
        assert [url.rpartition("sets/")[2] for url in found] == ["a-000.tar", "a-001.tar"]
        assert all(url.startswith("memory://") for url in found)
        braces = expand_patterns("memory://sets/{a-000,b}.tar", "data.train", remote=True)
        assert braces == ["memory://sets/a-000.tar", "memory://sets/b.tar"]
        with pytest.raises(DataError, match=r"data\.train: nothing matches 'memory://sets/c-\*\.tar'"):
            expand_patterns("memory://sets/c-*.tar", "data.train", remote=True)
    finally:
        system.rm("/sets", recursive=True)
    signed = "https://host/x.tar?sig=1"
    assert expand_patterns(signed, "data.train", remote=True) == [signed]
    assert index_path(signed) == "https://host/x.tar.index.jsonl?sig=1"


def test_file_urls_are_paths(tmp_path: Path) -> None:
    shard = _shard(tmp_path)
    assert expand_patterns(f"file://{tmp_path}/*.tar", "data.train") == [str(shard)]


@pytest.mark.parametrize(
    ("url", "message"),
    [("nonsense://bucket/x.tar", "data.train: nonsense://bucket/x.tar cannot be read: Protocol not known: nonsense"),
     ("ftp://127.0.0.1:1/x.tar", r"data.train: ftp://127.0.0.1:1/x.tar cannot be read: \[Errno"),
     ("abfs://box/x.tar", "data.train: abfs://box/x.tar cannot be read: Install adlfs to access Azure")],
)  # fmt: skip
def test_a_store_that_nothing_here_can_read_is_named(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        index_shards([url], "data.train", tmp_path)


def test_a_command_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    command = f"pipe:touch {tmp_path}/executed"
    with pytest.raises(DataError, match=r"runs a command; data\.allow_pipe=true allows that"):
        expand_patterns(command, "data.train", remote=True)
    assert expand_patterns(command, "data.train", remote=True, allow_pipe=True) == [command]
    assert not (tmp_path / "executed").exists()


def test_what_a_command_writes_is_a_shard(tmp_path: Path) -> None:
    for name in ("x-0.tar", "x-1.tar"):
        _shard(tmp_path, name, index=False)
    pattern = f"pipe:cat {tmp_path}/x-{{0..1}}.tar && echo >> {tmp_path}/runs"
    shards = expand_patterns(pattern, "data.train", remote=True, allow_pipe=True)
    for _ in range(2):
        index = index_shards(shards, "data.train", tmp_path / "cache")
        assert {sample.shard for sample in index.samples} == set(shards)
        assert len(index.samples) == 6
        assert _contents(index.samples) == MEMBERS
    assert (tmp_path / "runs").read_text() == "\n\n", "each ran once"


@pytest.mark.parametrize("command", ["cat {shard}; echo out of order >&2; exit 3", "kill -9 $$"])
def test_a_command_that_fails_gives_no_shard(command: str, tmp_path: Path) -> None:
    shard = _shard(tmp_path, index=False)
    with pytest.raises(DataError, match=r"data\.train: the command .* ended with"):
        index_shards([f"pipe:{command.replace('{shard}', str(shard))}"], "data.train", tmp_path / "cache")
    assert all(path.suffix == ".lock" for path in (tmp_path / "cache").iterdir())


def test_output_that_ends_too_early_is_noticed(tmp_path: Path) -> None:
    shard = _shard(tmp_path, index=False)
    index = index_shard(f"pipe:head -c 3000 {shard}", tmp_path / "cache")
    assert [skip.reason for skip in index.skips] == ["damaged_shard"]


def test_a_folder_for_copies_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(OutputError, match=r"set data\.cache_dir to a folder"):
        fetch("pipe:true", tmp_path / "cache")


def test_half_a_copy_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    path = Path(fetch("pipe:echo x", tmp_path))
    (tmp_path / f"{path.name}.partial-1").write_text("half")
    assert fetch("pipe:echo x", tmp_path) == str(path)
    assert not (tmp_path / f"{path.name}.partial-1").exists()
