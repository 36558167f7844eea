"""TuSimple's form of lanes: a JSON object for each image and line, with x at fixed rows.

    {"lanes": [[-2, 632, 625], [-2, -2, 719]], "h_samples": [240, 250, 260], "raw_file": "clips/0313-1/6040/20.jpg"}

Source: TuSimple benchmark, lane detection challenge. Any negative x means that the lane is absent at its row, as the
benchmark reads it; it is written as -2.

A file without a single lane lists images to be labelled, as the published test_tasks_0627.json does: its empty lanes do
not say that an image shows none. (A file called label_data* does say so.) Where a label file names the same images, its
lanes count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.datasets.notes import Note, Tally, warn
from kdal_core.datasets.scene import LaneScene, read_lines, safe_path
from kdal_core.datasets.texts import parse_json, write_text
from kdal_core.errors import ConfigError, LabelFormatError
from kdal_core.metrics.lane_distance import as_lane, mean_crossings
from kdal_core.validation import InvalidInput, as_vector

Floats = NDArray[np.float64]

ABSENT = -2
LABEL_FILE = "label_data.json"
"""Where scenes are written that no file of a TuSimple folder named."""
LABELLED = "label_data"
"""What files are called in which an image without lanes shows none, even if no image has any."""
FIRST_LINES, LONGEST_LINE = 5, 4 * 1024**2
"""Lines, and their letters, by which a label file is known."""
STEP, FIRST = 10 / 720, 160 / 720
"""TuSimple's own rows, from 160 to 710 in steps of 10, as shares of its images' height."""


def label_files(folder: Path) -> list[str]:
    """Names of the files of a folder that hold TuSimple labels: lines of JSON objects with a ``raw_file``."""
    found = [path for path in folder.iterdir() if path.suffix in (".json", ".jsonl") and path.is_file()]
    return sorted(path.name for path in found if _is_label_file(path))


def read_tusimple(folder: Path, lists: Sequence[str] = (), note: Note = warn) -> list[LaneScene]:
    """The images of a TuSimple folder with their lanes, in the order of its files.

    A lane is its points (x, y) at the rows where it is present; rows that are missing between them are a gap, and
    come back as one. `extra` keeps the record's other keys, ``h_samples`` among them.

    Args:
        folder: holds the label files and, below it, the images.
        lists: names of the label files to read; all of them by default.
        note: takes what could not be used, a sentence each; logged as warnings by default. The image of a damaged
            record has no label (None).

    Raises:
        ConfigError: no label files, or one of `lists` is not there.
        LabelFormatError: an image that two records label, or nothing that can be used at all; names file and line.
    """
    names = list(lists) or (label_files(folder) if folder.is_dir() else [])
    if not names:
        raise ConfigError(f"{folder}: no TuSimple labels here (a .json or .jsonl file of lines with a raw_file)")
    problems: list[str] = []
    scenes: dict[str, LaneScene] = {}
    for name in names:
        for scene in _file(folder, name, problems.append):
            scenes[scene.path] = _one_of(scenes.get(scene.path), scene, folder)
    if not scenes and problems:
        raise LabelFormatError(problems[0])
    tally = Tally(note)
    for scene in scenes.values():
        if not scene.labelled and "lanes" in scene.extra:
            tally.add("no image of this file has a lane: this one is read as not labelled yet", _place(scene, folder))
    tally.say()
    for problem in problems:
        note(problem)
    return list(scenes.values())


def write_tusimple(scenes: Iterable[LaneScene], folder: Path) -> None:
    """Write labels that `read_tusimple` reads back: the same values, files and order of lines.

    Raises:
        InvalidInput: a scene without ``h_samples``, or a lane with a point that is on none of these rows.
    """
    files: dict[str, list[tuple[int, str]]] = {}
    for scene in scenes:
        for name, (number, _) in (scene.lists or {LABEL_FILE: (0, "")}).items():
            files.setdefault(safe_path(name, scene.path), []).append((number, record_of(scene)))
    for name, lines in files.items():
        write_text(folder / name, "".join(f"{line}\n" for _, line in sorted(lines, key=lambda item: item[0])))


def record_of(scene: LaneScene) -> str:
    """A scene's line in a label file; raises as `write_tusimple`."""
    extra = dict(scene.extra)
    rows = extra.pop("h_samples", None)
    if rows is None and scene.lanes is not None:
        raise InvalidInput(f"{scene.path}: extra must say the rows of its lanes (h_samples).")
    record: dict[str, Any] = {} if scene.lanes is None else {"lanes": _columns(scene.lanes, rows, scene.path)}
    if scene.lanes is None and extra.get("lanes") == []:  # of a list of images to be labelled
        record["lanes"] = []
    record |= ({} if rows is None else {"h_samples": rows}) | {"raw_file": scene.path}
    return json.dumps(record | {key: value for key, value in extra.items() if key not in record})


def rows_of(height: int) -> list[int]:
    """Rows at which lanes of images of this height are told when nothing says which: TuSimple's, scaled.

    >>> rows_of(720)[:3], rows_of(720)[-1], len(rows_of(720))
    ([160, 170, 180], 710, 56)
    """
    step = max(1, round(height * STEP))
    return list(range(round(height * FIRST), height, step))


def at_rows(lane: ArrayLike, h_samples: ArrayLike, gaps: Sequence[Sequence[float]] = ()) -> Floats:
    """The points of a polyline on rows, as TuSimple tells lanes.

    Args:
        lane: (n, 2) vertices in pixels, n >= 2. On a row that it meets more than once, the mean counts.
        h_samples: (R,) rows in pixels.
        gaps: pairs of rows between which the lane is absent.

    Returns:
        (m, 2) points from top to bottom, m <= R.

    >>> at_rows([[0, 0], [40, 40]], [10, 20, 30, 50], gaps=[[10, 30]]).tolist()
    [[10.0, 10.0], [30.0, 30.0]]
    """
    vertices, rows = as_lane("lane", lane), as_vector("h_samples", h_samples)
    y = vertices[:, 1]
    present = (y.min() <= rows) & (rows <= y.max())
    for above, below in gaps:
        present &= (rows <= above) | (below <= rows)
    points: Floats = np.stack([mean_crossings(vertices, rows), rows], axis=1)
    visible: Floats = points[present & (points[:, 0] >= 0)]
    return visible


def gaps_of(lane: ArrayLike, h_samples: ArrayLike) -> list[list[float]]:
    """Pairs of rows between which a lane (n, 2) of points on rows has none though there are rows.

    >>> gaps_of([[5, 10], [5, 30], [5, 40]], [10, 20, 30, 40])
    [[10.0, 30.0]]
    """
    points, rows = np.asarray(lane, dtype=np.float64), as_vector("h_samples", h_samples)
    numbers = np.searchsorted(rows, points[:, 1])
    return [[float(rows[a]), float(rows[b])] for a, b in pairwise(numbers.tolist()) if b > a + 1]


def _is_label_file(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = [file.readline(LONGEST_LINE) for _ in range(FIRST_LINES)]
    except (OSError, ValueError):
        return False
    return any('"raw_file"' in line and _has_image(line) for line in lines)


def _has_image(line: str) -> bool:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and "raw_file" in record


def _file(folder: Path, name: str, note: Note) -> list[LaneScene]:
    """The images of a label file, or of a list of images to be labelled."""
    found: dict[str, LaneScene] = {}
    for number, line in enumerate(read_lines(folder, name)):
        if not line.strip():
            continue
        try:
            scene = _scene(line, f"{folder / name}:{number + 1}", {name: (number, "")}, note)
        except LabelFormatError as error:
            note(f"{error}: it is left out")
            continue
        found[scene.path] = _one_of(found.get(scene.path), scene, folder)
    scenes = list(found.values())
    if any(scene.lanes for scene in scenes) or PurePosixPath(name).name.startswith(LABELLED):
        return scenes
    return [replace(s, lanes=None, extra=s.extra | {"lanes": []}) if s.labelled else s for s in scenes]


def _place(scene: LaneScene, folder: Path) -> str:
    ((name, (number, _)),) = scene.lists.items()
    return f"{folder / name}:{number + 1}: {scene.path}"


def _one_of(known: LaneScene | None, scene: LaneScene, folder: Path) -> LaneScene:
    """The labelled one of two records of an image.

    Raises:
        LabelFormatError: both are.
    """
    if known is None or known.lanes is None:
        return scene
    if scene.lanes is None:
        return known
    ((other, (first, _)),) = known.lists.items()
    raise LabelFormatError(
        f"{_place(scene, folder)} has a label in {other}:{first + 1} too; say with --list which "
        "file to read, or remove one of the records"
    )


def _scene(line: str, where: str, lists: dict[str, tuple[int, str]], note: Note) -> LaneScene:
    try:
        record = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise LabelFormatError(f"{where}: it is no JSON ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("raw_file"), str):
        raise LabelFormatError(f"{where}: it has no raw_file")
    extra = {key: value for key, value in record.items() if key not in ("raw_file", "lanes")}
    path = safe_path(record["raw_file"], where)
    if record.get("lanes") is None:
        return LaneScene(path, None, extra, lists)
    try:
        return LaneScene(path, _lanes(record, where), extra, lists)
    except LabelFormatError as error:
        note(f"{error}; the label of {path} is unknown")
        return LaneScene(path, None, {}, lists)


def _lanes(record: dict[str, Any], where: str) -> tuple[Floats, ...]:
    rows = _numbers(record.get("h_samples"), f"{where}: h_samples")
    if (np.diff(rows) <= 0).any():
        raise LabelFormatError(f"{where}: h_samples must rise from each row to the next")
    if not isinstance(record["lanes"], list):
        raise LabelFormatError(f"{where}: lanes is no list")
    lanes = []
    for number, lane in enumerate(record["lanes"]):
        x = _numbers(lane, f"{where}: lane {number + 1}")
        if len(x) != len(rows):
            raise LabelFormatError(f"{where}: lane {number + 1} has {len(x)} numbers for {len(rows)} rows")
        lanes.append(np.stack([x, rows], axis=1)[x >= 0])
    return tuple(lanes)


def _numbers(value: Any, where: str) -> Floats:
    if not isinstance(value, list) or any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        raise LabelFormatError(f"{where} is no list of numbers")
    try:
        numbers = np.array(value, dtype=np.float64)
    except OverflowError as error:
        raise LabelFormatError(f"{where} holds a number that is too large") from error
    if not np.isfinite(numbers).all():
        raise LabelFormatError(f"{where} holds a number that is not finite")
    return numbers


def _columns(lanes: Sequence[Floats], rows: Any, path: str) -> list[list[float]]:
    """x of each lane at each row; whole numbers when all of them are."""
    heights = as_vector("h_samples", rows)
    whole = all((lane[:, 0] == np.round(lane[:, 0])).all() for lane in lanes)
    columns = []
    for lane in lanes:
        numbers = np.searchsorted(heights, lane[:, 1])
        if (numbers == len(heights)).any() or (heights[numbers] != lane[:, 1]).any():
            raise InvalidInput(f"{path}: a lane has a point that is on none of the rows (h_samples).")
        column: list[float] = [ABSENT] * len(heights)
        for number, x in zip(numbers.tolist(), lane[:, 0].tolist(), strict=True):
            column[number] = int(x) if whole else x
        columns.append(column)
    return columns
