"""Entries come back as they were stored, whoever writes at the same time, and damaged or stale ones are told apart."""

from __future__ import annotations

import logging
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from vilamp.embedding_cache import EmbeddingCache
from vilamp.errors import ConfigError

KEY = "ab" * 16
needs_permissions = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)


def entry(seed: int = 0, frames: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, 8, generator=generator), torch.arange(frames, dtype=torch.float64) / 3


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    """With one entry."""
    cache = EmbeddingCache(tmp_path / "embeddings", "scorer")
    cache.store(KEY, *entry())
    return cache


def test_what_was_stored_is_found_bit_for_bit(cache: EmbeddingCache) -> None:
    found = cache.find(KEY)
    assert found.outcome == "hits" and found.problem == ""
    for one, other in zip((found.embeddings, found.timestamps), entry(), strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype
    assert load_file(cache.path(KEY)).keys() == {"embeddings", "timestamps"}, "any tool can read it"
    assert cache.find("cd" * 16).outcome == "misses"


def test_an_entry_is_of_one_scorer(cache: EmbeddingCache) -> None:
    other = EmbeddingCache(cache.folder, "another")
    assert other.find(KEY).outcome == "misses"
    other.path(KEY).parent.mkdir(parents=True)
    cache.path(KEY).rename(other.path(KEY))
    assert other.find(KEY).outcome == "rebuilt"


def test_a_stale_format_another_key_and_another_file_are_rebuilt(cache: EmbeddingCache) -> None:
    path, (embeddings, timestamps) = cache.path(KEY), entry()
    moved = cache.path("ab" + "00" * 15)
    moved.write_bytes(path.read_bytes())
    assert "key is" in cache.find(moved.stem).problem
    save_file({"embeddings": embeddings, "timestamps": timestamps}, path, {"format": "vilamp-embeddings/0"})
    assert "format is 'vilamp-embeddings/0'" in cache.find(KEY).problem
    save_file({"x": embeddings}, path)
    assert cache.find(KEY).outcome == "rebuilt"
    path.unlink()
    path.mkdir()
    assert cache.find(KEY).outcome == "rebuilt"


@settings(max_examples=200)
@given(st.data())
def test_no_damage_gives_other_embeddings(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    cache = EmbeddingCache(tmp_path_factory.mktemp("damage"), "scorer")
    cache.store(KEY, *entry())
    whole = cache.path(KEY).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:place]
    else:
        damaged = whole[:place] + bytes([whole[place] ^ (1 << data.draw(st.integers(0, 7)))]) + whole[place + 1 :]
    cache.path(KEY).write_bytes(damaged)
    found = cache.find(KEY)
    if found.embeddings is not None:  # a flipped blank of the header
        assert torch.equal(found.embeddings, entry()[0]) and torch.equal(found.timestamps, entry()[1])
    else:
        assert found.outcome == "rebuilt" and str(cache.path(KEY)) in found.problem
    cache.store(KEY, *entry())
    assert cache.find(KEY).outcome == "hits"


def _write_and_read(folder: Path, rounds: int) -> None:
    cache = EmbeddingCache(folder, "scorer")
    for _ in range(rounds):
        for number in range(4):
            key = f"{number:032x}"
            found = cache.find(key)
            if found.outcome == "rebuilt":
                os._exit(1)
            if found.embeddings is not None and not torch.equal(found.embeddings, entry(number, 300)[0]):
                os._exit(2)
            cache.store(key, *entry(number, 300))


def test_processes_that_write_and_read_at_once_never_see_half_an_entry(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_and_read, args=(tmp_path, 25)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4 and not list(tmp_path.rglob("*.partial"))


def _refuse(cache: EmbeddingCache) -> None:
    """Make writing fail for everybody, root too: a file stands where the folder of new entries has to be."""
    (cache.folder / cache.scorer / "ff").write_bytes(b"")


def test_what_cannot_be_written_is_said_once_and_counted(
    cache: EmbeddingCache, caplog: pytest.LogCaptureFixture
) -> None:
    _refuse(cache)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            cache.store(f"ff{number:030}", *entry())
    assert cache.unstored == 3
    (told,) = caplog.messages
    assert told.startswith("data.embedding_cache: no more embeddings are kept in this run")
    assert cache.find(KEY).outcome == "hits", "what is there is still read"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX has these")
@pytest.mark.parametrize("kind", ["fifo", "endless", "loop", "huge"])
def test_what_is_no_entry_is_neither_waited_for_nor_read_to_its_end(
    cache: EmbeddingCache, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, why = cache.path(KEY), "no plain file"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
        why = "symbolic links"
    else:
        monkeypatch.setattr("vilamp.embedding_cache.MAX_BYTES", 100)
        path.write_bytes(bytes(101))
        why = "it has more than 100 bytes"
    found = cache.find(KEY)
    assert (found.outcome, why in found.problem) == ("rebuilt", True), found.problem
    monkeypatch.undo()
    cache.store(KEY, *entry())
    assert (cache.find(KEY).outcome, cache.unstored) == ("hits", 0)


def test_a_folder_in_the_place_of_an_entry_costs_this_one_only(
    cache: EmbeddingCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.path(KEY).unlink()
    cache.path(KEY).mkdir()
    cache.store(KEY, *entry())
    cache.store("cd" * 16, *entry())
    assert (cache.unstored, cache.find("cd" * 16).outcome) == (1, "hits")
    assert str(cache.path(KEY)) in caplog.messages[0]
    assert not list(cache.folder.rglob("*.partial"))


@needs_permissions
def test_a_folder_that_may_only_be_read_is_read(cache: EmbeddingCache) -> None:
    folders = [cache.folder, *(path for path in cache.folder.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        cache.store(KEY, *entry(1))
        assert cache.unstored == 1 and torch.equal(cache.find(KEY).embeddings, entry()[0])
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_a_full_disk_leaves_no_file_behind(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path, content: bytes) -> int:
        path.open("wb").close()
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", fill)
    cache.store(KEY, *entry(1))
    assert cache.unstored == 1
    assert [path.name for path in cache.folder.rglob("*") if path.is_file()] == [f"{KEY}.safetensors"]
    assert torch.equal(cache.find(KEY).embeddings, entry()[0])


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match=r"^data\.embedding_cache=.*x is a file"):
        EmbeddingCache(tmp_path / "x", "scorer")


def test_times_that_differ_from_the_decoded_ones_make_an_entry_stale(cache: EmbeddingCache) -> None:
    found, times = cache.find(KEY), entry()[1]
    assert found.agreeing_with(times) is found
    for other in (times[:-1], times + 0.1):
        stale = found.agreeing_with(other)
        assert stale.outcome == "rebuilt" and stale.embeddings is None and "at other times" in stale.problem
    assert cache.find("00").agreeing_with(times).outcome == "misses"
