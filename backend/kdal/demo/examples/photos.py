"""Photos of a folder, a folder for each class; by default real ones of clothes, fetched by their git commit."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image, ImageOps

Json = dict[str, Any]

REPOSITORY = "https://github.com/alexeygrigorev/clothing-dataset-small"
COMMIT = "36364be1969242c019705255cd87aed00c73a939"
"""3,781 photos of ten kinds of clothes, public domain (CC0). A commit's name is the digest of all that it holds."""
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})
MOST = 400
"""Photos that the demo takes."""
LONGEST = 320
"""Pixels of the longer side of an uploaded photo."""
PATIENCE = 900
"""Seconds that fetching may take."""


class PhotosError(Exception):
    """There are no photos; says what to do."""


class Photos:
    """One class for each photo: the name of its folder.

    Args:
        folder: holds a folder of photos for each class; none: the one that the environment's PHOTOS names, else what is
            fetched: the clothes, or the commit PHOTOS_COMMIT of PHOTOS_REPOSITORY.
        cache: where fetched photos are kept.

    Raises:
        PhotosError: there are none.
    """

    name = "photos"
    policy: Json = {"budget": 20}  # noqa: RUF012
    rounds = 5
    draws = 5
    suffix = "jpg"

    def __init__(self, folder: Path | None = None, cache: Path = Path(".kdal-demo/photos")) -> None:
        named = os.environ.get("PHOTOS")
        folder = folder or (Path(named) if named else fetched(cache))
        found = photos_of(folder)
        self.classes = sorted({label for _, label in found})
        if len(self.classes) < 2:
            raise PhotosError(
                f"{folder} does not hold a folder of photos for each of two classes at least. PHOTOS names another "
                "folder; `make demo` shows digits, and needs nothing"
            )
        random.Random(0).shuffle(found)
        self._photos = found[:MOST]

    @property
    def title(self) -> str:
        """Of the project: Label Studio takes 50 characters."""
        return textwrap.shorten(f"Photos: {', '.join(self.classes)}", 50, placeholder=" ...")

    @property
    def label_config(self) -> str:
        """One choice of the classes."""
        choices = "\n    ".join(f"<Choice value={quoteattr(name)}/>" for name in self.classes)
        return f"""<View>
  <Image name="image" value="$image" maxWidth="600px"/>
  <Choices name="class" toName="image" choice="single" required="true" showInline="true">
    {choices}
  </Choices>
</View>"""

    def __len__(self) -> int:
        return len(self._photos)

    def image(self, index: int) -> bytes:
        """A photo as a JPEG file, small enough for a demo."""
        with Image.open(self._photos[index][0]) as photo:
            upright = ImageOps.exif_transpose(photo).convert("RGB")
            upright.thumbnail((LONGEST, LONGEST))
            file = io.BytesIO()
            upright.save(file, "JPEG", quality=88)
            return file.getvalue()

    def truth(self, index: int) -> list[Json]:
        """The name of the photo's folder, as Label Studio has it."""
        value = {"choices": [self._photos[index][1]]}
        return [{"from_name": "class", "to_name": "image", "type": "choices", "value": value}]

    def answer(self, index: int) -> list[Json]:
        """What somebody chooses who sees it."""
        return self.truth(index)


def photos_of(folder: Path) -> list[tuple[Path, str]]:
    """The photos below a folder, each with the name of the folder that it is in."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    return sorted((path, path.parent.name) for path in found if path.parent != folder)


def fetched(cache: Path) -> Path:
    """The folder of the photos, fetched where they are not there yet.

    Raises:
        PhotosError: they cannot be fetched.
    """
    repository = os.environ.get("PHOTOS_REPOSITORY") or REPOSITORY
    commit = os.environ.get("PHOTOS_COMMIT") or COMMIT
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise PhotosError(f"PHOTOS_COMMIT must be the 40 hexadecimal digits of a commit, not {commit!r}")
    done = cache / f"{commit}.complete"
    if done.exists():
        return cache
    cache.mkdir(parents=True, exist_ok=True)
    steps = (
        ["init", "--quiet"],
        ["fetch", "--quiet", "--depth", "1", repository, commit],
        ["checkout", "--quiet", "--detach", commit],
    )
    for step in steps:
        try:
            result = subprocess.run(
                ["git", "-C", str(cache), *step],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CEILING_DIRECTORIES": str(cache.absolute().parent)},
            )
            why = result.stderr.strip().splitlines()[-1:] if result.returncode else None
        except (OSError, subprocess.TimeoutExpired) as error:
            why = [str(error)]
        if why is not None:
            raise PhotosError(
                f"The photos of {repository} cannot be fetched ({' '.join(why) or 'git gives no reason'}). With "
                "PHOTOS=folder the demo takes your own, a folder for each class; `make demo` shows digits, and needs "
                "no network"
            )
    done.touch()
    return cache
