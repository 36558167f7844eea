"""What an interrupted run goes on from: a JSON file of one set of settings, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdal_core.errors import ConfigError


@dataclass(frozen=True)
class Journal:
    """A run's file.

    Attributes:
        path: of the file; its folder is made when it is first written.
        fingerprint: of the run's settings, as text. A file of other settings is refused, and never written over.
        advice: what to do about a file that cannot be used, at the end of a sentence.
    """

    path: Path
    fingerprint: str
    advice: str = "start again with --fresh"

    def read(self) -> dict[str, Any] | None:
        """What was written last; None when there is nothing.

        Raises:
            ConfigError: it belongs to other settings, or is damaged.
        """
        if not self.path.is_file():
            return None
        try:
            content = json.loads(self.path.read_text())
            found = content.pop("fingerprint")
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise self.damaged(error) from error
        if found != self.fingerprint:
            raise ConfigError(
                f"{str(self.path)!r} was made with other settings. Write to another folder with --out, or "
                f"{self.advice}."
            )
        return dict(content)

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace what is there, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps({**content, "fingerprint": self.fingerprint}) + "\n")
        draft.replace(self.path)

    def damaged(self, error: Exception) -> ConfigError:
        """The error to raise for content that makes no sense."""
        return ConfigError(f"{str(self.path)!r} is damaged ({error}): {self.advice}.")
