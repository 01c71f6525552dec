"""What may be shown of an address: where something lies, never how to get in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilamp.credentials import without_credentials
from vilamp.data.sources import SourceError
from vilamp.errors import DataError
from vilamp.samples import Skip

SIGNED = "https://host/a/x.tar?X-Amz-Signature=topsecret&Expires=9"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("my/train-0.tar", "my/train-0.tar"),
        ("what? yes@home", "what? yes@home"),
        ("s3://bucket/train-?.tar", "s3://bucket/train-?.tar"),
        ("s3://key:secret@bucket/a@b.tar", "s3://bucket/a@b.tar"),
        ("ftp://me@mail:secret@host:21/x.tar", "ftp://host:21/x.tar"),
        ("pipe:curl 'https://me:secret@host/x.tar' | cat", "pipe:curl 'https://host/x.tar' | cat"),
        ("https://host/x?~01234567&sig=topsecret", "https://host/x?~d3d67f3a"),
        (f"{SIGNED}: gone", "https://host/a/x.tar?~cfa80ee4: gone"),
        (f"(url='{SIGNED}')", "(url='https://host/a/x.tar?~cfa80ee4')"),
    ],
)
def test_what_is_shown_of_an_address(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    assert without_credentials(shown) == shown


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=6), st.text())
def test_no_secret_is_shown_and_what_is_shown_stays(secret: str, around: str) -> None:
    secret = f"secret{secret}"
    for url in (f"https://user:{secret}@host/x.tar", f"https://host/x.tar?token={secret}&n=1"):
        shown = without_credentials(f"{around} {url} {around}")
        assert secret not in shown
        assert without_credentials(shown) == shown


def test_shards_that_differ_in_the_query_alone_have_different_names() -> None:
    names = {without_credentials(f"https://host/get?file={number}.tar") for number in range(100)}
    assert len(names) == 100


def test_skips_and_errors_hold_none() -> None:
    skip = Skip("a", SIGNED, "unreachable", f"a.mp4: {SIGNED} cannot be read")
    for text in (
        skip.shard,
        skip.detail,
        str(DataError(f"data.train: {SIGNED}")),
        str(SourceError(f"{SIGNED} is gone")),
    ):
        assert "topsecret" not in text and "https://host/a/x.tar" in text
