"""What mkdocs does to a page before it renders it: formulas become MathML, and links lead to pages of the site.

The same files are read in the repository, where ``$...$`` is a formula and links lead to files, some of which are no
pages: the guide for contributors, and the journals of campaigns.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^\$\$\n(.+?)\n\$\$$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<![\\$\w])\$(?! )([^$\n]+?)(?<! )\$(?![\w$])")
PART = re.compile(r'^--8<-- "([\w.]+):(\w+)"$', re.MULTILINE)
LINKS = (
    (re.compile(r"\]\((?:\.\./)*CONTRIBUTING\.md(#[\w-]+)?\)"), r"](extending.md\1)"),
    (re.compile(r"\]\(docs/"), "]("),
    (re.compile(r"(?<!!)\[([^\]]+)\]\((?:\.\./)?(runs[\w/.]*)\)"), r"\1 (`docs/\2`)"),
)
ROOT = Path(__file__).parents[2]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page's text, with code left as it is."""
    # Not pymdownx.snippets, which comes after this, when links cannot be mended any more.
    markdown = PART.sub(lambda found: _part(ROOT / found[1], found[2]), markdown)
    parts = CODE.split(markdown)
    parts[::2] = [_rewritten(part) for part in parts[::2]]
    return "".join(parts)


def _part(file: Path, name: str) -> str:
    text = file.read_text()
    start, end = (f"<!-- --8<-- [{which}:{name}] -->\n" for which in ("start", "end"))
    return text[text.index(start) + len(start) : text.index(end)]


def _rewritten(text: str) -> str:
    text = BLOCK.sub(lambda found: f"\n{convert(found[1], display='block')}\n", text)
    text = INLINE.sub(lambda found: convert(found[1]), text)
    for pattern, replacement in LINKS:
        text = pattern.sub(replacement, text)
    return text
