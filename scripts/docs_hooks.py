"""What MkDocs is told beside mkdocs.yml: pages of the nav that there are, and roles of docstrings as plain code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>~?((?:[\w]+\.)*)([\w]+)</code>")
"""A reference as reStructuredText has it, which Markdown leaves as it stands."""


def on_config(config: Any) -> Any:
    """Leave out of the nav what does not exist."""
    config.nav = existing(config.nav, Path(config.docs_dir))
    return config


def existing(nav: list[Any], folder: Path) -> list[Any]:
    """The entries whose page exists, and the sections in which there is one."""
    kept: list[Any] = []
    for (title, target), *_ in (entry.items() for entry in nav):
        if isinstance(target, list):
            target = existing(target, folder)
            kept += [{title: target}] if target else []
        elif (folder / target).is_file():
            kept.append({title: target})
    return kept


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to a file of the source, which is no page, is its name alone."""
    return re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show of a reference the name that it ends with."""
    return ROLE.sub(r"<code>\2</code>", html)
