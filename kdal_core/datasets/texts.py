"""Text files of data sets, as people's tools write them: with or without a byte-order mark, in any declared encoding.

A text keeps its byte-order mark and its ends of lines, so that it can be written back byte for byte.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from kdal_core.errors import ConfigError, LabelFormatError

MOST_BYTES = 256 * 1024**2
"""Size of a text file above which it is no label of an image and no list of images."""
BOM = "\ufeff"
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
NO_TEXT = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7")
"""Python's encodings that no text file has; some of them take very long on a stranger's bytes."""
WIDER = {"gb2312": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "iso8859-1": "cp1252"}
"""What tools write that declare a narrower encoding."""
DECLARED = re.compile(rb"""\s*<\?xml\b[^>]*\bencoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file of a data set.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
        LabelFormatError: it is larger than `most` bytes.
    """
    try:
        if not path.is_file():
            raise ConfigError(f"{path}: cannot be read (it is not there, or it is no file)")
        if (size := path.stat().st_size) > most:
            raise LabelFormatError(f"{path}: it has {size:,} bytes, more than any label file")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def decode(data: bytes) -> tuple[str, str]:
    """Text with its byte-order mark, and its encoding: what the mark says, else UTF-8.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    encoding = next((name for mark, name in BOMS if data.startswith(mark)), "utf-8")
    return data.decode(encoding), encoding


def decode_xml(data: bytes) -> tuple[str, str]:
    """As `decode`, for XML: the encoding that it declares counts where there is no byte-order mark.

    Raises:
        UnicodeDecodeError, LookupError: it is not text in this encoding, or there is no such encoding.
    """
    if any(data.startswith(mark) for mark, _ in BOMS):
        return decode(data)
    if data[:4] in (b"<\0?\0", b"\0<\0?"):
        encoding = "utf-16-le" if data[0] else "utf-16-be"
        return data.decode(encoding), encoding
    found = DECLARED.match(data[:400])
    encoding = codecs.lookup(found[1].decode("ascii")).name if found else "utf-8"
    if encoding in NO_TEXT:
        raise LookupError(f"{encoding} is no encoding of a text file")
    if encoding.startswith(("utf-16", "utf-32")):  # declared by what cannot be so encoded: its declaration is ASCII
        encoding = "utf-8"
    try:
        return data.decode(encoding), encoding
    except UnicodeDecodeError:
        if encoding not in WIDER:
            raise
        return data.decode(WIDER[encoding]), WIDER[encoding]


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file with its byte-order mark, and its encoding.

    Raises:
        ConfigError: there is no such file, or it cannot be read.
        LabelFormatError: it is no text, or too large.
    """
    data = read_bytes(path)
    try:
        return decode(data)
    except UnicodeDecodeError as error:
        raise LabelFormatError(f"{path}: it is no text in UTF-8 ({error}); save it as UTF-8") from error


def lines_of(text: str) -> list[str]:
    r"""The lines of a text without its byte-order mark. They end with ``\n``, ``\r\n`` or ``\r`` alone.

    >>> lines_of("\ufeffa\r\nb\u2028c\n")
    ['a', 'b\u2028c']
    """
    lines = text.removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Write a text as it is, ends of lines too, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def parse_json(text: str) -> Any:
    """What JSON says.

    Raises:
        ValueError, RecursionError: it is no JSON, or an object has a key twice: one of its values would be lost.
    """
    return json.loads(text.removeprefix(BOM), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:60]!r} is there twice")
    return found
