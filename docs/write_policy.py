"""Write docs/policy-reference.md from the policy's own fields: `make docs`."""

from __future__ import annotations

import ast
import inspect
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from kdal.policy import Policy

HEAD = """# Policy, key by key

Every key of a project's policy, as kdal checks it. What they are for, and which are worth a thought:
[a project's policy](policy.md).

This page is written by `make docs`.

"""
LIMITS = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below"))


def page() -> str:
    """The page, with a section for each key."""
    described, schemas = descriptions(), Policy.model_json_schema()["properties"]
    parts = []
    for name, field in Policy.model_fields.items():
        parts.append(f"## {name}\n\n{_kind(schemas[name])}. Default: {_default(field)}.\n\n{described[name]}\n")
    return HEAD + "\n".join(parts)


def descriptions() -> dict[str, str]:
    """The text below each field of the class, in one line; kdal's Python names become plain words."""
    (body,) = [node.body for node in ast.parse(inspect.getsource(Policy)).body if isinstance(node, ast.ClassDef)]
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            said = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            found[field.target.id] = " ".join(str(text.value.value).split()) if said else ""  # type: ignore[attr-defined]
    return found


def _kind(schema: dict[str, Any]) -> str:
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    words = " or ".join(_word(option) for option in options)
    return (words + (", or null" if len(options) < len(schema.get("anyOf", options)) else "")).capitalize()


def _word(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    word = {"integer": "whole number", "string": "text", "object": "object", "boolean": "`true` or `false`"}
    limits = [f"{said} {schema[key]:,}" for key, said in LIMITS if key in schema]
    return " ".join([word.get(schema["type"], schema["type"]), " and ".join(limits)]).strip()


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "see below"
    return f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    Path(__file__).with_name("policy-reference.md").write_text(page())
