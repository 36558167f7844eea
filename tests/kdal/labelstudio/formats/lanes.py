"""What the tests of the lane formats share: configs, tasks, regions."""

from __future__ import annotations

from typing import Any

from kdal.policy import Policy

LANES = Policy(task="lanes")
TAGS = ("VectorLabels", "Vector", "KeyPointLabels", "PolygonLabels", "BrushLabels")


def config(tag: str, labels: tuple[str, ...] = ("lane", "curb")) -> str:
    inner = "".join(f'<Label value="{label}"/>' for label in labels if tag != "Vector")
    return f'<View><Image name="img" value="$image"/><{tag} name="drawn" toName="img">{inner}</{tag}></View>'


def region(tag: str, value: dict[str, Any], *labels: str, **fields: Any) -> dict[str, Any]:
    kind = tag.lower()
    named = {kind: list(labels)} if labels else {}
    return {"id": "abc", "from_name": "drawn", "to_name": "img", "type": kind, "value": value | named} | fields


def task(*regions: Any, **fields: Any) -> dict[str, Any]:
    return {"id": 12, "data": {"image": "a.jpg"}, "annotations": [annotation(*regions, **fields)]}


def annotation(*regions: Any, **fields: Any) -> dict[str, Any]:
    return {"id": 1, "result": list(regions), "was_cancelled": False, "ground_truth": False} | fields
