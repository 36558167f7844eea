"""Where a task's data holds the address of its image, as Label Studio's editor looks for it.

``<Image value="$image">`` names a key of the data, ``value="$meta.image"`` a path into it. A key that is spelled like
the whole path comes first, then the path is walked: "meta.image", "pages[0].url".
"""

from __future__ import annotations

import re
from typing import Any

from kdal.aliases import Json

STEP = re.compile(r"[^.\[\]]+")


def image_address(task: Any, key: str) -> str | None:
    """The address of a task's image; none when its data holds no text under the key: `why_no_address` says why.

    Args:
        task: as Label Studio sends it, ``{"id": 7, "data": {...}}``.
        key: `kdal.labelstudio.formats.Format.image_key`.
    """
    found = _found(task, key)
    return found if isinstance(found, str) and found else None


def why_no_address(task: Any, key: str) -> str:
    """Why a task has no image address: what its data holds in the place of one."""
    found = _found(task, key)
    if isinstance(found, list):
        return (
            f'its data holds a list of {len(found)} images under "{key}", and kdal takes one image a task: import each '
            "image as a task of its own"
        )
    if found is None or found == "":
        return f'its data holds no image address under "{key}"'
    return f'its data holds no image address under "{key}", but {_sort_of(found)}'


def data_with(key: str, address: str) -> Json:
    """The data of a task whose image is at this address.

    >>> data_with("meta.image", "/a.png")
    {'meta': {'image': '/a.png'}}
    >>> data_with("pages[0].url", "/a.png")
    {'pages': [{'url': '/a.png'}]}
    """
    value: Any = address
    for step in reversed(re.findall(r"\[\d+\]|[^.\[\]]+", key)):
        index = step.strip("[]")
        value = [*[None] * int(index), value] if step.startswith("[") else {step: value}
    return dict(value)


def _found(task: Any, key: str) -> Any:
    value = task.get("data") if isinstance(task, dict) else None
    if isinstance(value, dict) and key in value:
        return value[key]
    for step in STEP.findall(key):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _sort_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "an object"
