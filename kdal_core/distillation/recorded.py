"""A teacher's answers in a file: for experiments that repeat, and for teachers that are no longer there."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from kdal_core.distillation.ledger import image_key
from kdal_core.distillation.teacher import check_answer, check_classes, check_images
from kdal_core.errors import AssetError, TeacherError

KEYS, PROBABILITIES, CLASSES = "keys", "probabilities", "classes"


class RecordedTeacher:
    """Answers what was recorded, by the image's content.

    Args:
        path: a .safetensors or .npz file that `record_answers` wrote, or one like it: `keys` (N, 32) uint8, the
            SHA-256 of `image_key`; `probabilities` (N, C); `classes`, the names as JSON in the metadata of a
            safetensors file, as an array of text in an .npz. Nothing is unpickled.

    Raises:
        AssetError: the file is missing, damaged, or holds something else.
    """

    def __init__(self, path: Path | str) -> None:
        keys, probabilities, classes = _read(Path(path))
        self._path, self._classes = Path(path), check_classes(classes)
        try:
            self._answers = check_answer(probabilities, len(keys), self._classes)
        except TeacherError as error:
            raise AssetError(f"{str(path)!r} holds no answers of a teacher: {error}") from error
        self._rows = {bytes(key).hex(): row for row, key in enumerate(keys)}

    def __len__(self) -> int:
        """Images it has an answer for."""
        return len(self._rows)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return self._classes

    def query(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> probabilities (N, C) float32.

        Raises:
            TeacherError: an image that was not recorded.
        """
        rows = [self._rows.get(image_key(image)) for image in check_images(images)]
        if unknown := rows.count(None):
            raise TeacherError(
                f"{unknown} of {len(rows)} images are not among the {len(self):,} recorded in {str(self._path)!r}; "
                "record the teacher on exactly these pixels.",
                charged=False,
            )
        return self._answers[torch.tensor([row for row in rows if row is not None], dtype=torch.long)]


def record_answers(path: Path | str, keys: Sequence[str], probabilities: Tensor, classes: Sequence[str]) -> None:
    """Write answers as a file that `RecordedTeacher` reads.

    Args:
        path: ends in .safetensors or .npz; what is there is replaced.
        keys: N of `image_key`.
        probabilities: (N, C).
        classes: C names.

    Raises:
        TeacherError: these are no probabilities for the keys and classes.
        AssetError: another ending.
    """
    path, classes = Path(path), check_classes(classes)
    answers = check_answer(probabilities, len(keys), classes).numpy()
    digests = np.frombuffer(b"".join(bytes.fromhex(key) for key in keys), dtype=np.uint8).reshape(-1, 32)
    if path.suffix == ".safetensors":
        tensors = {KEYS: digests.copy(), PROBABILITIES: answers}
        save_file(tensors, path, metadata={CLASSES: json.dumps(classes, ensure_ascii=False)})
    elif path.suffix == ".npz":
        np.savez(path, keys=digests, probabilities=answers, classes=np.array(classes))
    else:
        raise AssetError(f"A recording ends in .safetensors or .npz, which {str(path)!r} does not.")


def _read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[str]]:
    """Keys (N, 32), probabilities (N, C) and classes of a recording."""
    try:
        keys, probabilities, classes = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
        if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != 32:
            raise ValueError(f"keys must be uint8 (N, 32), not {keys.dtype} {keys.shape}")
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise AssetError(f"The recording {str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    return keys, probabilities, classes


def _read_safetensors(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[str]]:
    with safe_open(path, framework="numpy") as file:
        classes = json.loads((file.metadata() or {})[CLASSES])
        return file.get_tensor(KEYS), file.get_tensor(PROBABILITIES), [str(name) for name in classes]


def _read_npz(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[str]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays[KEYS], arrays[PROBABILITIES], [str(name) for name in arrays[CLASSES]]
