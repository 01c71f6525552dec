"""The index beside a shard: what is read by it, what it notices, and what is not believed of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tars import annotation, write_tar

from vilamp.cli import index as index_command
from vilamp.data import index_file
from vilamp.data.index_file import BadIndexError, IndexFile, LeftOut, index_path, parse_index, read_index, to_bytes
from vilamp.data.packing.indexing import index_foreign_shard
from vilamp.data.shard_sample import ShardIndex, ShardSample, checksum
from vilamp.data.shards import index_shard, index_shards, walk_shard
from vilamp.data.tar_listing import Member
from vilamp.errors import DataError
from vilamp.samples import Skip, SkipSample

TEXT = annotation("one?", video=None)


def _indexed(tmp_path: Path, *members: tuple[str, bytes]) -> Path:
    shard = write_tar(tmp_path / "x.tar", members or [("a.json", TEXT), ("a.txt", b"A" * 900), ("b.json", TEXT)])
    file, _ = index_foreign_shard(str(shard))
    Path(index_path(shard)).write_bytes(to_bytes(file))
    return shard


def test_with_an_index_the_samples_are_those_of_a_walk_with_their_checksums(tmp_path: Path) -> None:
    shard = str(_indexed(tmp_path, ("a.json", TEXT), ("../b.json", TEXT), ("c.mp4", b""), ("sub/d.json", TEXT)))
    index, walked = index_shard(shard), walk_shard(shard)
    assert index.verified and not walked.verified
    assert [(s.key, s.members) for s in index.samples] == [(s.key, s.members) for s in walked.samples]
    assert index.skips == walked.skips != []
    assert index.samples[0].checksums == {"json": checksum(TEXT)}


def test_with_an_index_the_tar_is_not_walked(tmp_path: Path) -> None:
    shard = _indexed(tmp_path)
    shard.write_bytes(bytes(shard.stat().st_size))
    index = index_shard(str(shard))
    assert [sample.key for sample in index.samples] == ["a", "b"]
    assert index.skips == []
    with pytest.raises(SkipSample, match=r"checksum: a\.json: the bytes are not those that were indexed"):
        index.samples[0].read("json")


def test_of_a_shard_that_shrank_what_is_left_is_read_and_the_rest_counted(tmp_path: Path, caplog: Any) -> None:
    shard = _indexed(tmp_path)
    shard.write_bytes(shard.read_bytes()[: 5 * 512])
    with caplog.at_level(logging.WARNING, "vilamp"):
        index = index_shard(str(shard))
    assert [skip.reason for skip in index.skips] == ["stale_index"]
    assert "the shard has 2560 bytes, its index says 10240" in caplog.text
    assert index.samples[0].read("txt") == b"A" * 900
    with pytest.raises(SkipSample, match="damaged_shard"):
        index.samples[1].read("json")


def test_a_shard_that_is_gone_is_counted(tmp_path: Path) -> None:
    shard = _indexed(tmp_path)
    shard.unlink()
    index = index_shard(str(shard))
    assert [skip.reason for skip in index.skips] == ["damaged_shard"]
    assert len(index.samples) == 2


def test_an_index_that_cannot_be_used_is_counted_and_the_shard_walked(tmp_path: Path) -> None:
    shard = _indexed(tmp_path)
    path = Path(index_path(shard))
    path.write_bytes(path.read_bytes().replace(b'"size":900', b'"size":901'))
    index = index_shard(str(shard))
    assert not index.verified
    assert [(skip.reason, skip.key) for skip in index.skips] == [("bad_index", "")]
    assert index.samples == walk_shard(str(shard)).samples


def test_which_guarantees_are_off_is_said_once(tmp_path: Path, caplog: Any) -> None:
    shards = [str(write_tar(tmp_path / f"{i}.tar", [(f"{i}.json", TEXT)])) for i in range(3)]
    with caplog.at_level(logging.WARNING, "vilamp"):
        assert not index_shards(shards, "data.train").verified
    [record] = caplog.records
    assert "data.train: 3 of 3 shard(s) have no usable index" in record.getMessage()
    caplog.clear()
    assert index_command.main(shards) == 0
    assert index_shards(shards, "data.train").verified
    assert not caplog.records


def test_indexes_of_foreign_shards_name_what_is_refused(tmp_path: Path, capsys: Any) -> None:
    members = [("a.json", TEXT), ("b.json", b"{"), ("c.json", annotation()), ("c.mp4", b"noise"), ("d.mp4", b"")]
    shard = write_tar(tmp_path / "x.tar", members)
    assert index_command.main([str(shard), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["samples"] == 3
    refused = [(entry["key"], entry["reason"]) for entry in row["refused"]]
    assert refused == [("d", "missing_member"), ("b", "bad_json"), ("c", "decode")]
    assert index_command.main([str(shard)]) == 1
    assert "is there already; --overwrite replaces it" in capsys.readouterr().out
    assert index_command.main([str(shard), "--overwrite"]) == 0


def test_a_damaged_shard_is_not_indexed(tmp_path: Path, capsys: Any) -> None:
    """Else the rest would look as if it had never been there."""
    shard = write_tar(tmp_path / "x.tar", [("a.json", TEXT), ("b.json", TEXT)])
    shard.write_bytes(shard.read_bytes()[:1400])
    assert index_command.main([str(shard)]) == 1
    assert "a damaged shard is not indexed" in capsys.readouterr().out
    assert not Path(index_path(shard)).exists()


NAMES = st.text("ab/ü-_", min_size=1, max_size=6).filter(lambda name: not name.startswith("/"))


@given(st.lists(NAMES, unique=True, max_size=6), st.integers(0, 1000), st.none() | st.floats(0, 1e9), st.text())
def test_what_is_written_is_what_is_read(keys: list[str], size: int, seconds: float | None, text: str) -> None:
    samples = [
        ShardSample("x.tar", key, {"json": Member(512 + i * 2048, size)}, {"json": checksum(key.encode())}, seconds)
        for i, key in enumerate(keys)
    ]
    skips = [Skip(text, "x.tar", "bad_name", text)]
    file = IndexFile(1 << 20, ShardIndex(samples, skips), "plan", (LeftOut("q.json:1", text, 3, "decode", text),))
    assert parse_index(to_bytes(file), "x.tar") == file
    assert to_bytes(parse_index(to_bytes(file), "x.tar")) == to_bytes(file)


@given(st.data())
def test_every_flipped_bit_and_every_cut_of_an_index_is_noticed(data: st.DataObject) -> None:
    sample = ShardSample("x.tar", "a", {"json": Member(512, 7)}, {"json": checksum(b"")})
    content = bytearray(to_bytes(IndexFile(10240, ShardIndex([sample], []))))
    position = data.draw(st.integers(0, len(content) - 2))  # the last byte is a line feed, which may be missing
    if data.draw(st.booleans()):
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[position:]
    with pytest.raises(BadIndexError):
        parse_index(bytes(content), "x.tar")


def _forged(*lines: dict[str, Any], **head: Any) -> bytes:
    """An index whose checksum is right, whatever it says."""
    first = {"format": index_file.FORMAT, "bytes": 10240, "samples": len(lines), "plan": ""} | head
    body = b"".join(json.dumps(line).encode() + b"\n" for line in (first, *lines))
    return body + json.dumps({"digest": checksum(body)}).encode() + b"\n"


def _line(key: Any = "a", offset: Any = 512, size: Any = 10, seconds: Any = None, name: str = "json") -> dict[str, Any]:
    members = {"json": {"offset": 8192, "size": 1, "xxh3": "0"}, name: {"offset": offset, "size": size, "xxh3": "0"}}
    return {"sample": key, "seconds": seconds, "members": members}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"[" * 1000, "more than 32 deep"),
        (b'{"digest": "x"}', "checksum is not that of its content"),
        (_forged(format="vilamp-index/9"), "'vilamp-index/1' is read"),
        (_forged(samples=5), "0 samples are listed, the head says 5"),
        (_forged(_line("../a")), "no name of a sample"),
        (_forged(_line("/etc/passwd")), "no name of a sample"),
        (_forged(_line("a\x1b[2J")), "no name of a sample"),
        (_forged(_line(7)), "sample must be a text"),
        (_forged(_line(), _line(offset=4096)), "comes twice"),
        (_forged(_line(name="../../x")), "no extension"),
        (_forged(_line(offset=-1)), "offset must be a whole number"),
        (_forged(_line(offset=True)), "offset must be a whole number"),
        (_forged(_line(size=1 << 70)), "size must be a whole number"),
        (_forged(_line(size=1 << 50)), "outside of the 10240 bytes"),
        (_forged(_line(offset=0)), "outside of the 10240 bytes"),
        (_forged(_line(name="mp4", offset=8192)), "two members overlap"),
        (_forged(_line(seconds=float("nan"))), "seconds must be a number"),
        (_forged(_line(seconds=10**400)), "seconds must be a number"),
        (_forged(_line(seconds="1")), "seconds must be a number"),
        (_forged({"sample": "a", "members": {}}), "a has no json"),
        (_forged({"sample": "a", "members": []}), "an object should stand"),
    ],
)  # fmt: skip
def test_what_an_index_says_is_not_believed_if_it_cannot_be(content: bytes, message: str) -> None:
    with pytest.raises(BadIndexError, match=message):
        parse_index(content, "x.tar")


def test_no_more_of_an_index_is_read_than_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = _indexed(tmp_path)
    monkeypatch.setattr(index_file, "MAX_BYTES", 100)
    with pytest.raises(BadIndexError, match="more than 100 bytes"):
        read_index(str(shard))
    assert [skip.reason for skip in index_shard(str(shard)).skips] == ["bad_index"]


def test_no_sample_at_all_is_an_error_with_an_index_too(tmp_path: Path) -> None:
    shard = _indexed(tmp_path, ("a.mp4", b""))
    with pytest.raises(DataError, match="1 x missing_member"):
        index_shards([str(shard)], "data.val")
