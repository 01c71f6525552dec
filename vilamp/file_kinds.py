"""What a file is that is no video, by its first bytes, and what to do about it.

For messages alone: FFmpeg says of all of these that the data or an argument is invalid.
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
