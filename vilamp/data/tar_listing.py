"""The members of a tar file from its headers alone.

``tarfile`` takes a damaged header in the middle of a file for the end of it, and everything behind is lost without a
word.  Here the end is the end marker and nothing else.  No member is read, and nothing in a header makes the walk go
backwards or read more than :data:`MAX_EXTENSION` bytes.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENSION = 1 << 20
"""Bytes of an extended header (long names and the like)."""


class DamagedTarError(Exception):
    """The rest of the file cannot be known."""


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of one regular file lie."""

    offset: int
    size: int


@dataclass
class TarListing:
    """What a walk found.

    Attributes:
        members: (name, place) of the regular files, in the order of the tar; a name may come twice.
        refused: (name, reason, detail) of members that are not used: ``bad_name`` or ``not_a_file``.
        damage: why the walk ended before the end marker, None where it did not.
    """

    members: list[tuple[str, Member]] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    damage: str | None = None


def list_tar(path: str | Path) -> TarListing:
    """Walk over the headers of a tar file; what comes before any damage is listed."""
    listing = TarListing()
    try:
        with Path(path).open("rb") as file:
            _walk(file, Path(path).stat().st_size, listing)
    except (DamagedTarError, OSError) as error:
        listing.damage = str(error)
    return listing


_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys, what breaks a line, what shows the text behind it in another order, and what is no UTF-8."""


def is_safe_text(text: str) -> bool:
    """Whether a text stays on its line and is shown as it is written.

    Spaces of every kind may be in it (macOS puts one into the names of its screen recordings), and what joins emoji.
    """
    return not _UNFIT.search(text)


def is_safe_name(name: str) -> bool:
    """Whether a name stays in its folder and on its line."""
    return is_safe_text(name) and not name.startswith("/") and ".." not in name.split("/")


def _walk(file: BinaryIO, total: int, listing: TarListing) -> None:
    offset = 0
    extension: dict[str, str] = {}
    while block := _block(file, offset):
        info = _header(block, offset)
        size = _size(info, extension, offset)
        holds_data = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        data = _behind_sparse_map(file, block, offset) if info.type == tarfile.GNUTYPE_SPARSE else offset + BLOCK
        if holds_data or info.type in _EXTENSIONS:
            if data + size > total:
                raise DamagedTarError(f"the file ends inside {info.name!r}, at byte {total} of {data + size}")
            offset = data + -(-size // BLOCK) * BLOCK
        else:
            offset = data
        if info.type in _EXTENSIONS:
            extension |= _read_extension(file, info, data, size)
            continue
        _add(listing, info, extension, Member(data, size))
        extension = {}


def _block(file: BinaryIO, offset: int) -> bytes | None:
    """The header at ``offset``, None at the end marker."""
    file.seek(offset)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise DamagedTarError(f"the file ends without its end marker, at byte {offset + len(block)}")
    if any(block):
        return block
    while rest := file.read(1 << 20):
        if any(rest):
            raise DamagedTarError(f"there is more data behind the end marker at byte {offset}")
    return None


def _header(block: bytes, offset: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        what = "this is no tar file; a compressed one must be unpacked" if offset == 0 else str(error)
        raise DamagedTarError(f"no valid header at byte {offset}: {what}") from error


def _behind_sparse_map(file: BinaryIO, block: bytes, offset: int) -> int:
    """Where the data of an old GNU sparse file begins: its header goes on in as many blocks as its holes need."""
    goes_on = block[482]
    while goes_on:
        offset += BLOCK
        file.seek(offset)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise DamagedTarError(f"the file ends inside the header at byte {offset}")
        goes_on = block[504]
    return offset + BLOCK


def _size(info: tarfile.TarInfo, extension: dict[str, str], offset: int) -> int:
    size = info.size
    if "size" in extension and info.type not in _EXTENSIONS:
        size = int(extension["size"]) if extension["size"].isdecimal() and len(extension["size"]) < 20 else -1
    if size < 0:
        raise DamagedTarError(f"the header at byte {offset} declares an impossible size")
    return size


_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def _read_extension(file: BinaryIO, info: tarfile.TarInfo, offset: int, size: int) -> dict[str, str]:
    """What an extended header says of the member behind it."""
    if size > MAX_EXTENSION:
        raise DamagedTarError(f"the extended header at byte {offset - BLOCK} declares {size} bytes")
    file.seek(offset)
    source = file.read(size)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": source.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    return _pax_records(source) if info.type in _PAX else {}


def _pax_records(source: bytes) -> dict[str, str]:
    """Records of the form ``<length> <keyword>=<value>`` and a line feed; the length counts all of it."""
    records = {}
    while match := re.match(rb"(\d{1,7}) ([^=]+)=", source):
        length = int(match[1])
        if length <= match.end() or length > len(source):
            break
        value = source[match.end() : length - 1]
        records[match[2].decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        source = source[length:]
    return records


def _add(listing: TarListing, info: tarfile.TarInfo, extension: dict[str, str], member: Member) -> None:
    raw = extension.get("GNU.sparse.name", extension.get("path", info.name))
    name = str(PurePosixPath(raw))  # without a leading ./
    if info.isdir():
        return
    sparse = info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in extension)
    if not is_safe_name(raw):
        # ascii() also makes surrogates and control characters fit for a terminal.
        listing.refused.append(
            (ascii(raw)[1:-1][:200], "bad_name", "absolute, leaves its folder, or holds a control character")
        )
    elif sparse or not info.isreg():
        what = "a sparse file" if sparse else "a link, a device or of an unknown type"
        listing.refused.append((name, "not_a_file", f"{what}: only plain files are read"))
    elif not PurePosixPath(name).name.startswith("."):
        # Hidden files are what file managers leave behind; WebDataset does not see them either.
        listing.members.append((name, member))
