"""What a file is by its first bytes, and what to do about one that is no video.

For messages: FFmpeg says of all of these that the data or an argument is invalid.  And for how long a file should be.
"""

from __future__ import annotations

import re

HEAD = 512
"""First bytes of a file by which :func:`kind_of` goes."""

_AS_MP4 = "ffmpeg -i FILE FILE.mp4"
_BARE = "a bare video stream, which has no timestamps; ffmpeg -framerate 25 -i FILE FILE.mp4 gives it those of a rate"
_PICTURE = "a picture, or several of them, and no video"
_KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"\s*<(?:!doctype )?html", "a web page, as servers send one in place of a file; fetch the video again"),
    (rb"\s*(?:<\?xml|[{\[]\s*[\"{\]}])", "a text, as servers send one in place of a file; fetch the video again"),
    (rb"version https://git-lfs", "a pointer of Git LFS to the video; `git lfs pull` fetches it"),
    (rb"\s*#EXTM3U|ffconcat", f"a playlist, and what it names is never opened; {_AS_MP4} makes one video of it"),
    (rb"\d+\s+\d\d:\d\d:\d\d[,.]\d|WEBVTT", "a file of subtitles"),
    (rb"\0{0,2}\0\0\x01(?!\xba)|\x12\0\x0a", _BARE),  # MPEG and H.26x, AV1; BA begins a container
    (rb"DKIF|YUV4MPEG2", f"a video stream without a container; {_AS_MP4} puts it into one"),
    (rb"\xff\xd8\xff|\x89PNG|BM....\0\0\0\0|II\*\0|MM\0\*|RIFF....WEBP", _PICTURE),
    (rb"\x1f\x8b|PK\x03\x04|Rar!|7z\xbc\xaf|\x28\xb5\x2f\xfd|BZh", "a compressed file or an archive; unpack it first"),
    (rb"%PDF", "a PDF"),
    (rb"\0{%d}" % HEAD, "a file that begins with nothing but zeros, as after a transfer that was broken off"),
    (rb"\Z", "an empty file"),
)


def kind_of(head: bytes) -> str:
    """What a file is that begins with ``head``, and what to do; empty where that is not known."""
    return next((kind for start, kind in _KINDS if re.match(start, head, re.DOTALL | re.IGNORECASE)), "")


_CONTAINERS: tuple[tuple[bytes, str], ...] = (
    (rb".{4}(?:ftyp|moov|mdat|free|skip|wide)", "an mp4"),
    (rb"\x1a\x45\xdf\xa3", "Matroska"),
    (rb"RIFF.{4}AVI ", "an AVI"),
    (rb"FLV\x01", "an FLV"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "an ASF"),
    (rb"OggS", "an Ogg"),
    (rb"GIF8[79]a", "a GIF"),
)


def container_of(head: bytes) -> str:
    """What kind of video file begins with ``head``; empty where that is not known."""
    return next((name for start, name in _CONTAINERS if re.match(start, head, re.DOTALL)), "")


_HEADER, _SEGMENT = 0x1A45DFA3, 0x18538067


def declared_bytes(head: bytes) -> int | None:
    """How long the Matroska file that begins with ``head`` says it is; None for other files and where it does not say.

    Of its outermost elements (RFC 8794, section 4) the segment holds the video (RFC 9559, section 4.5).  Who writes
    without being able to go back leaves its size open.
    """
    place = 0
    while element := _element(head, place):
        kind, begin, size = element
        if kind == _SEGMENT:
            return None if size is None else begin + size
        if size is None or (place == 0 and kind != _HEADER):
            return None
        place = begin + size
    return None


def _element(head: bytes, place: int) -> tuple[int, int, int | None] | None:
    """(kind, where its content begins, bytes of the content or None if left open) of an element; None where none is."""
    kind_length = _length(head, place)
    size_length = _length(head, place + kind_length)
    begin = place + kind_length + size_length
    if not kind_length or not size_length or begin > len(head):
        return None
    kind = int.from_bytes(head[place : place + kind_length], "big")
    marker = 1 << 7 * size_length
    size = int.from_bytes(head[begin - size_length : begin], "big") - marker
    return kind, begin, None if size == marker - 1 else size


def _length(head: bytes, place: int) -> int:
    """Bytes of the number at a place, by the zeros at its beginning; 0 where there is none."""
    return 9 - head[place].bit_length() if place < len(head) and head[place] else 0
