"""The headers of tar files, whole and damaged."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from pathlib import Path

import pytest
from tars import write_tar

from vilamp.data.tar_listing import BLOCK, TarListing, list_tar

FILES = [("a.json", b"{}"), ("a.mp4", b"x" * 1000), ("b/c.json", b""), ("b/c.mp4", b"y" * 512)]


def _names(listing: TarListing) -> list[str]:
    return [name for name, _ in listing.members]


def _contents(path: Path) -> list[tuple[str, bytes]]:
    source = path.read_bytes()
    return [(name, source[m.offset : m.offset + m.size]) for name, m in list_tar(path).members]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_member_is_where_it_is_said_to_be(tmp_path: Path, form: int) -> None:
    files = [*FILES, ("dir/" * 20 + "long" * 20 + ".json", b"long")]
    if form != tarfile.USTAR_FORMAT:
        files += [("k" * 300 + ".json", b"longer"), ("grüße.json", b"umlauts")]
    path = write_tar(tmp_path / "x.tar", files, format=form)
    assert list_tar(path).damage is None
    assert _contents(path) == files


def test_a_leading_dot_is_no_part_of_a_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("./a.json", b"{}"), (".//b/./c.json", b"{}")])
    assert _names(list_tar(path)) == ["a.json", "b/c.json"]


def test_folders_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo("b")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in ("._a.json", "b/.DS_Store", "a.json"):
            tar.addfile(tarfile.TarInfo(name))
    listing = list_tar(path)
    assert (_names(listing), listing.refused, listing.damage) == (["a.json"], [], None)


@pytest.mark.parametrize("name", [
    "../a.json", "x/../../a.json", "/etc/a.json", "a\nb.json", "a\x1b[2J.json", "x/..", "a\x9b2J.json", "a\x7f.json",
    "a\u2028b.json", "gpj\u202e.json", "gpj\u2067.json",
])  # fmt: skip
def test_names_that_leave_the_folder_or_the_line_are_refused(tmp_path: Path, name: str) -> None:
    listing = list_tar(write_tar(tmp_path / "x.tar", [(name, b"{}"), ("good.json", b"{}")]))
    assert _names(listing) == ["good.json"]
    [(shown, reason, _)] = listing.refused
    assert reason == "bad_name"
    assert shown.isprintable()


@pytest.mark.parametrize(
    "name", ["at 9.00\u202fAM", "a\u00a0b", "\u3000", "\U0001f468\u200d\U0001f467", "\u200fא", "\ue000"]
)
def test_spaces_and_what_cannot_be_seen_are_no_reason_to_refuse_a_name(tmp_path: Path, name: str) -> None:
    listing = list_tar(write_tar(tmp_path / "x.tar", [(f"{name}.json", b"{}")]))
    assert (_names(listing), listing.refused) == ([f"{name}.json"], [])


def test_bytes_that_are_no_utf8_are_refused_and_shown_escaped(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a\udcff.json", b"{}")], format=tarfile.GNU_FORMAT)
    assert list_tar(path).refused[0][:2] == ("a\\udcff.json", "bad_name")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"Z"])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.mp4")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
        tar.addfile(tarfile.TarInfo("b.json"))
    listing = list_tar(path)
    assert _names(listing) == ["b.json"]
    assert [entry[:2] for entry in listing.refused] == [("a.mp4", "not_a_file")]


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_an_old_sparse_file_is_refused_and_what_follows_is_found(tmp_path: Path, blocks: int) -> None:
    """Its map of holes takes further blocks behind the header, the last of which says that it is the last."""
    whole = write_tar(tmp_path / "x.tar", [("a.mp4", b"x" * 700), ("b.json", b"{}")], format=tarfile.GNU_FORMAT)
    source = bytearray(whole.read_bytes())
    source[156:157] = tarfile.GNUTYPE_SPARSE
    source[482] = blocks > 0
    source[148:156] = b" " * 8
    source[148:156] = b"%06o\0 " % sum(source[:BLOCK])
    more = [bytearray(BLOCK) for _ in range(blocks)]
    for block in more[:-1]:
        block[504] = 1
    source[BLOCK:BLOCK] = b"".join(more)
    whole.write_bytes(source)
    listing = list_tar(whole)
    assert _contents(whole) == [("b.json", b"{}")]
    assert [entry[:2] for entry in listing.refused] == [("a.mp4", "not_a_file")]


def test_a_pax_sparse_file_of_ten_kilobytes_is_not_expanded(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("GNUSparseFile.1/a.mp4")
        info.size = 4
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "a.mp4", "GNU.sparse.realsize": str(1 << 32)}
        tar.addfile(info, io.BytesIO(b"0\n0\n"))
    listing = list_tar(path)
    assert (_names(listing), [entry[:2] for entry in listing.refused]) == ([], [("a.mp4", "not_a_file")])


@pytest.mark.parametrize(
    ("cut", "names", "message"),
    [
        (0, [], "without its end marker, at byte 0"),
        (300, [], "without its end marker, at byte 300"),
        (2 * BLOCK, ["a.json"], "without its end marker, at byte 1024"),
        (3 * BLOCK + 1, ["a.json"], "ends inside 'a.mp4', at byte 1537 of 2536"),
        (5 * BLOCK, ["a.json", "a.mp4"], "without its end marker"),
    ],
)
def test_of_a_cut_off_tar_the_beginning_is_listed(tmp_path: Path, cut: int, names: list[str], message: str) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    path.write_bytes(path.read_bytes()[:cut])
    listing = list_tar(path)
    assert _names(listing) == names
    assert message in str(listing.damage)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    source = bytearray(path.read_bytes())
    source[2 * BLOCK + 5] ^= 1
    path.write_bytes(source)
    listing = list_tar(path)
    assert _names(listing) == ["a.json"]
    assert "no valid header at byte 1024" in str(listing.damage)


def test_a_wiped_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", FILES)
    source = bytearray(path.read_bytes())
    source[2 * BLOCK : 3 * BLOCK] = bytes(BLOCK)
    path.write_bytes(source)
    assert "more data behind the end marker at byte 1024" in str(list_tar(path).damage)


def test_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    noise = random.Random(0).randbytes(2000)
    plain = write_tar(tmp_path / "x.tar", [("a.mp4", noise)])
    (tmp_path / "x.tgz").write_bytes(gzip.compress(plain.read_bytes()))
    assert "a compressed one must be unpacked" in str(list_tar(tmp_path / "x.tgz").damage)
    assert "No such file" in str(list_tar(tmp_path / "gone.tar").damage)


@pytest.mark.parametrize("size", ["-1", "99999999999999999999", "abc", str(1 << 62)])
def test_an_impossible_size_ends_the_walk(tmp_path: Path, size: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.mp4")
        info.pax_headers = {"size": size}
        tar.addfile(info)
    listing = list_tar(path)
    assert not listing.members
    assert "impossible size" in str(listing.damage) or "ends inside" in str(listing.damage)


def test_an_extended_header_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 << 20
        tar.addfile(info, io.BytesIO(bytes(2 << 20)))
    assert "declares 2097152 bytes" in str(list_tar(path).damage)


def _mutations_are_harmless(tmp_path: Path, seeds: range) -> None:
    """Whatever is in the file: no error, places inside it, and what has changed outside of the contents is noticed."""
    path = write_tar(tmp_path / "x.tar", [*FILES, ("k" * 150 + ".json", b"{}")], format=tarfile.PAX_FORMAT)
    whole = path.read_bytes()
    expected = dict(list_tar(path).members)
    for seed in seeds:
        rng = random.Random(seed)
        source = bytearray(whole)
        for _ in range(rng.choice([1, 1, 4])):
            source[rng.randrange(len(source))] = rng.randrange(256)
        if rng.random() < 0.3:
            del source[rng.randrange(len(source)) :]
        if rng.random() < 0.2:
            del source[: rng.randrange(BLOCK)]
        path.write_bytes(source)
        listing = list_tar(path)
        assert all(m.offset + m.size <= len(source) for _, m in listing.members)
        if listing.damage is None and len(source) == len(whole):
            moved = {name for name, m in listing.members if name in expected and expected[name] != m}
            assert not moved, seed


def test_mutated_tars(tmp_path: Path) -> None:
    _mutations_are_harmless(tmp_path, range(200))


@pytest.mark.soak
def test_many_mutated_tars(tmp_path: Path) -> None:
    _mutations_are_harmless(tmp_path, range(200, 50_000))
