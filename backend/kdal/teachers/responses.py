"""From a teacher's JSON to probabilities in our order of classes. Where the answer names classes, names decide."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from kdal.teachers.config import MLBackendTeacherSettings, ResponseSettings
from kdal_core.errors import TeacherError

Row = list[float]


class Columns:
    """The student's classes, and what the teacher calls them.

    Args:
        classes: ours, in order.
        names: the teacher's names of those that it calls differently: {its: ours}.
    """

    def __init__(self, classes: Sequence[str], names: Mapping[str, str]) -> None:
        self._classes, self._names = tuple(classes), dict(names)
        self._place = {name: place for place, name in enumerate(self._classes)}

    def __len__(self) -> int:
        return len(self._classes)

    def row(self, scores: Mapping[str, Any]) -> Row:
        """Probabilities by the teacher's names -> in our order; each class exactly once."""
        row: list[float | None] = [None] * len(self)
        for name, score in scores.items():
            row[self.place(name)] = _number(score)
        if missing := [name for name, score in zip(self._classes, row, strict=True) if score is None]:
            raise TeacherError(
                f"The teacher's answer has too few classes: {len(missing)} of {len(self)} have no probability, for "
                f"example {missing[0]!r}."
            )
        return [score for score in row if score is not None]

    def place(self, name: Any) -> int:
        """Our number of a class of the teacher's."""
        ours = self._names.get(str(name), str(name))
        if ours not in self._place:
            raise TeacherError(
                f"The teacher answers with a class {_short(name)}, which is not among {', '.join(self._classes)}. Give "
                "its meaning under names, or ask a teacher for these classes alone."
            )
        return self._place[ours]

    def order(self, columns: Sequence[Any]) -> list[int]:
        """Of each of our classes, its column in the teacher's order."""
        places = [self.place(name) for name in columns]
        if sorted(places) != list(range(len(self))):
            raise TeacherError(
                f"The teacher's answer has {len(set(places))} of our {len(self)} classes in {len(places)} columns: "
                "each class must be there once."
            )
        return [places.index(place) for place in range(len(self))]


def read_answer(body: Any, images: int, settings: ResponseSettings, columns: Columns) -> list[Row]:
    """Probabilities (N, C) of an endpoint's JSON answer, as settings say where they are.

    Raises:
        TeacherError: they are not there, or not for these images and classes.
    """
    entries = _found(settings.probabilities, body)
    if images == 1 and _is_one_entry(entries, settings):
        entries = [entries]
    if not isinstance(entries, list):
        raise TeacherError(f'The teacher\'s answer holds no list at "{settings.probabilities}": {_short(entries)}')
    if len(entries) != images:
        raise TeacherError(f"The teacher was asked about {images} images and answered about {len(entries)}.")
    names = settings.order if settings.classes is None else _found(settings.classes, body)
    if names is not None and not isinstance(names, list | tuple):
        raise TeacherError(f'The teacher\'s answer holds no list of classes at "{settings.classes}": {_short(names)}')
    order = None if names is None else columns.order(names)
    return [_row(entry, settings, columns, order) for entry in entries]


def read_ml_backend(body: Any, images: int, settings: MLBackendTeacherSettings, columns: Columns) -> list[Row]:
    """Probabilities (N, C) of an ML backend's answer to /predict.

    Raises:
        TeacherError: predictions are missing, hold no choices, or the backend says that it failed.
    """
    results = body.get("results") if isinstance(body, dict) else None
    if not isinstance(results, list):
        raise TeacherError(f'The ML backend\'s answer holds no "results": {_short(body)}')
    if len(results) != images:
        raise TeacherError(f"The ML backend was asked about {images} tasks and answered about {len(results)}.")
    return [_prediction(prediction, settings, columns) for prediction in results]


def _prediction(prediction: Any, settings: MLBackendTeacherSettings, columns: Columns) -> Row:
    """Probabilities of one prediction: kdal's own list of all classes, or what its regions say."""
    if isinstance(prediction, list):  # a backend may answer with the regions alone
        prediction = {"result": prediction}
    regions = prediction.get("result") if isinstance(prediction, dict) else None
    if not isinstance(regions, list):
        raise TeacherError(f"The ML backend's prediction is none: {_short(prediction)}")
    scores: dict[str, Any] = {}
    for region in regions:
        value = region.get("value") if isinstance(region, dict) else None
        if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
            continue
        meta = region.get("meta")
        if isinstance(meta, dict) and isinstance(meta.get("scores"), dict):
            return columns.row(meta["scores"])
        for choice in value["choices"]:
            scores[str(choice)] = region.get("score", prediction.get("score"))
    if not scores:
        why = f": it says {_short(prediction['error'])}" if "error" in prediction else ""
        raise TeacherError(f"The ML backend's prediction names no class{why}. {_short(prediction)}")
    if len(scores) == len(columns) or settings.rest == "refuse":
        return columns.row(scores)
    given = {columns.place(name): _number(score) for name, score in scores.items()}
    rest = (1 - sum(given.values())) / (len(columns) - len(given))
    return [given.get(place, rest) for place in range(len(columns))]


def _row(entry: Any, settings: ResponseSettings, columns: Columns, order: list[int] | None) -> Row:
    if isinstance(entry, dict):
        return columns.row(entry)
    if isinstance(entry, list) and entry and all(isinstance(score, dict) for score in entry):
        try:
            pairs = [(str(score[settings.label]), score[settings.score]) for score in entry]
        except KeyError as error:
            raise TeacherError(f"The teacher's answer has no {error} in {_short(entry[0])}.") from error
        if len(dict(pairs)) != len(pairs):
            raise TeacherError(f"The teacher's answer names a class twice: {_short(entry)}")
        return columns.row(dict(pairs))
    if not isinstance(entry, list):
        raise TeacherError(f"The teacher's answer for an image is no list of numbers: {_short(entry)}")
    if len(entry) != len(columns):
        few = "too few" if len(entry) < len(columns) else "too many"
        raise TeacherError(f"The teacher's answer has {few} classes: {len(entry)} where {len(columns)} are configured.")
    numbers = [_number(score) for score in entry]
    return numbers if order is None else [numbers[column] for column in order]


def _is_one_entry(entries: Any, settings: ResponseSettings) -> bool:
    """Whether what was found belongs to one image, rather than being a list with an entry for each."""
    if isinstance(entries, dict):
        return True
    if not isinstance(entries, list) or not entries:
        return False
    return all(isinstance(e, int | float) or (isinstance(e, dict) and settings.label in e) for e in entries)


def _found(expression: str, body: Any) -> Any:
    try:
        found = jmespath.search(expression, body)
    except JMESPathError as error:
        raise TeacherError(f'The teacher\'s answer cannot be searched for "{expression}": {error}') from error
    if found is None:
        raise TeacherError(f'The teacher\'s answer holds nothing at "{expression}": {_short(body)}')
    return found


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TeacherError(f"The teacher's answer holds {_short(value)} where a probability is expected.")
    try:
        return float(value)
    except OverflowError as error:
        raise TeacherError("The teacher's answer holds a number of hundreds of digits.") from error


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 160 else text[:157] + "..."
