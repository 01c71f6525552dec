"""Which samples a shard holds, and the reading of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tars import Members, write_tar

from vilamp.data.shard_sample import PIECE, ShardIndex, checksum
from vilamp.data.shards import index_shard, index_shards
from vilamp.errors import DataError
from vilamp.probe import FileRange, open_source
from vilamp.samples import SkipSample


def _index(tmp_path: Path, members: Members) -> ShardIndex:
    return index_shard(str(write_tar(tmp_path / "x.tar", members)))


def _reasons(index: ShardIndex) -> list[tuple[str, str]]:
    return [(skip.key, skip.reason) for skip in index.skips]


def test_members_with_one_key_are_one_sample(tmp_path: Path) -> None:
    index = _index(
        tmp_path, [("b.mp4", b"B"), ("a.json", b"{}"), ("a.mp4", b"A"), ("b.json", b"[]"), ("x/a.json", b"1")]
    )
    assert [sample.key for sample in index.samples] == ["a", "b", "x/a"]
    assert index.samples[0].read("mp4") == b"A"
    assert index.samples[1].read("mp4") == b"B"
    assert index.samples[1].read("json") == b"[]"
    assert index.skips == []


def test_dots_in_a_name_do_no_harm(tmp_path: Path) -> None:
    index = _index(tmp_path, [("a.b.v1.mp4", b"V"), ("a.b.json", b"{}"), ("a.json", b"{}"), ("a.mp4", b"A")])
    assert {sample.key: sorted(sample.members) for sample in index.samples} == {
        "a.b": ["json", "v1.mp4"],
        "a": ["json", "mp4"],
    }
    assert index.samples[0].read("v1.mp4") == b"V"


def test_dots_in_a_folder_are_no_extension(tmp_path: Path) -> None:
    index = _index(tmp_path, [("set.v1/a.json", b"{}"), ("set.v1/a.mp4", b"A"), ("set.json", b"{}")])
    assert {sample.key: sorted(sample.members) for sample in index.samples} == {
        "set.v1/a": ["json", "mp4"],
        "set": ["json"],
    }


def test_a_video_without_json_is_counted(tmp_path: Path) -> None:
    index = _index(tmp_path, [("a.json", b"{}"), ("b.mp4", b""), ("b.txt", b""), ("README", b"")])
    assert _reasons(index) == [("README", "bad_name"), ("b", "missing_member")]
    assert index.skips[1].detail == "no b.json for b.mp4, b.txt"


def test_a_key_that_comes_twice_is_not_guessed_at(tmp_path: Path) -> None:
    index = _index(tmp_path, [("a.json", b"1"), ("a.mp4", b"1"), ("a.json", b"2"), ("a.mp4", b"2"), ("b.json", b"{}")])
    assert [sample.key for sample in index.samples] == ["b"]
    assert _reasons(index) == [("a", "duplicate_key")]


def test_what_comes_before_damage_is_used_and_the_damage_counted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a.json", b"{}"), ("a.mp4", b"A" * 600), ("b.json", b"{}")])
    path.write_bytes(path.read_bytes()[: 5 * 512 + 100])
    index = index_shard(str(path))
    assert [sample.key for sample in index.samples] == ["a"]
    assert _reasons(index) == [("", "damaged_shard")]
    assert "what comes behind is lost" in index.skips[0].detail


def test_refused_members_are_counted(tmp_path: Path) -> None:
    index = _index(tmp_path, [("a.json", b"{}"), ("../a.mp4", b"A")])
    assert _reasons(index) == [("../a.mp4", "bad_name")]


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    sample = _index(tmp_path, [("a.json", b"{}"), ("a.webm", b"12345")]).samples[0]
    with pytest.raises(SkipSample, match=r"missing_member: no a\.mp4 in the shard; there is a\.json, a\.webm"):
        sample.read("mp4")
    with pytest.raises(SkipSample, match=r"too_large: a\.webm has 5 bytes, 4 are allowed"):
        sample.read("webm", most=4)
    Path(sample.shard).write_bytes(b"")
    for look in (sample.read, sample.source):
        with pytest.raises(SkipSample, match=r"damaged_shard: a\.webm: 0 of 5 bytes are there"):
            look("webm")
    Path(sample.shard).unlink()
    for look in (sample.read, sample.source):
        with pytest.raises(SkipSample, match=r"damaged_shard: .*No such file"):
            look("webm")


@pytest.mark.parametrize("indexed", [False, True])
def test_a_local_member_is_verified_and_left_where_it_lies(tmp_path: Path, indexed: bool) -> None:
    content = bytes(range(256)) * (PIECE // 100)  # several pieces and a rest
    (sample,) = _index(tmp_path, [("a.json", b"{}"), ("a.webm", content)]).samples
    if indexed:
        sample = replace(sample, checksums={"webm": checksum(content)})
    source = sample.source("webm")
    assert isinstance(source, FileRange)
    with open_source(source) as file:
        assert file.read() == content == sample.read("webm")
    shard = bytearray(Path(sample.shard).read_bytes())
    shard[source.offset + len(content) - 1] ^= 1
    Path(sample.shard).write_bytes(shard)
    if indexed:
        with pytest.raises(SkipSample, match=r"checksum: a\.webm"):
            sample.source("webm")
    Path(sample.shard).write_bytes(shard[: source.offset + len(content) - 1])
    with pytest.raises(SkipSample, match=rf"damaged_shard: .*{len(content) - 1} of {len(content)} bytes"):
        sample.source("webm")
    with pytest.raises(SkipSample, match="missing_member"):
        sample.source("mp4")


def test_shards_follow_one_another(tmp_path: Path) -> None:
    paths = [str(write_tar(tmp_path / f"{i}.tar", [("a.json", b"%d" % i)])) for i in range(3)]
    index = index_shards(paths, "data.train")
    assert [(sample.shard, sample.read("json")) for sample in index.samples] == [
        (path, b"%d" % i) for i, path in enumerate(paths)
    ]


@pytest.mark.parametrize(
    ("members", "message"),
    [([], "they are empty"), ([("a.mp4", b"")], "1 x missing_member.*The first: a: no a.json for a.mp4")],
)
def test_no_sample_at_all_is_an_error(tmp_path: Path, members: Members, message: str) -> None:
    path = str(write_tar(tmp_path / "x.tar", members))
    with pytest.raises(DataError, match=f"data.val: no sample in 1 shard.*{message}"):
        index_shards([path], "data.val")


NAMES = st.lists(st.text("ab./", min_size=1, max_size=8).map(lambda name: name + ".json") | st.text("ab./", min_size=1))


@settings(max_examples=40)
@given(NAMES)
def test_every_member_is_in_a_sample_in_a_skip_or_hidden(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = write_tar(tmp_path_factory.mktemp("any") / "x.tar", [(name, b"") for name in names])
    index = index_shard(str(path))
    used = {f"{sample.key}.{extension}" for sample in index.samples for extension in sample.members}
    told = {skip.key for skip in index.skips} | {word for skip in index.skips for word in skip.detail.split()}
    stems = {skip.key for skip in index.skips}
    for name in names:
        plain = "/".join(part for part in name.split("/") if part not in ("", "."))
        hidden = plain.split("/")[-1].startswith(".") or name.endswith("/")
        in_skip = name in told or any(plain.startswith(stem) for stem in stems)
        assert plain in used or hidden or in_skip, name
