"""A project's policy as a form: a field a key, and what is wrong said at its key."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from kdal.aliases import Json
from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal.resources import Resources
from kdal_core.errors import ConfigError

FIRST = (
    "budget",
    "budget_unit",
    "target",
    "price",
    "worth",
    "strategy",
    "explore",
    "holdout",
    "suggest_above",
    "queue",
)
"""Keys that most owners look for; the others come folded up."""
LONGEST = 2000
"""Characters of a value."""


@dataclass(frozen=True)
class Field:
    """A key of the policy, as the form shows it."""

    key: str
    default: str
    """As JSON; empty where the default depends on the project."""
    about: str


@cache
def fields() -> tuple[Field, ...]:
    """All keys, those of `FIRST` first."""
    about = _about()
    names = [*(key for key in FIRST if key in Policy.model_fields), *(k for k in Policy.model_fields if k not in FIRST)]
    found = []
    for name in names:
        default = Policy.model_fields[name].default
        told = isinstance(default, str | int | float | bool | dict)
        found.append(Field(name, json.dumps(default) if told else "", about.get(name, "")))
    return tuple(found)


def _about() -> dict[str, str]:
    """The text below each field of the class, in one line; kdal's Python names become plain words."""
    (body,) = [node.body for node in ast.parse(inspect.getsource(Policy)).body if isinstance(node, ast.ClassDef)]
    found = {}
    for node, text in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(text, ast.Expr):
            said = " ".join(str(getattr(text.value, "value", "")).split())
            found[node.target.id] = re.sub(r"`(?:kdal_core\.[\w.]+|\w*[A-Z]\w*)`", "kdal’s own", said).replace("`", "")
    return found


def as_text(policy: Mapping[str, Any]) -> dict[str, str]:
    """What the form's fields hold for a policy: texts as they are, anything else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in policy.items()}


def read(form: Mapping[str, str]) -> Json:
    """The keys that a form sets: JSON, or a text without its quotation marks; an empty field sets nothing."""
    policy: Json = {}
    for name in Policy.model_fields:
        text = form.get(f"key-{name}", "").strip()[:LONGEST]
        if text:
            try:
                policy[name] = json.loads(text)
            except (ValueError, RecursionError):
                policy[name] = text
    return policy


def problems(resources: Resources, label_config: str, policy: Json) -> dict[str, str]:
    """What is wrong with a policy, by key; what is about none of them under "". Nothing: it can serve the project."""
    try:
        parsed = Policy.model_validate(policy)
    except ValidationError as error:
        found: dict[str, str] = {}
        for each in error.errors(include_url=False):
            if each["type"] == "default_factory_not_called":
                continue  # a default that depends on another key, while that is wrong
            if each["type"] == "value_error":  # rules of ours about several keys, which they name
                for text in str(each["ctx"]["error"]).split("; "):
                    found.setdefault(_key(text), text)
            else:
                found.setdefault(str(each["loc"][0]), each["msg"])
        return found
    try:
        task = format_for(label_config, parsed).task()
        resources.teachers.check(parsed, task)
        parsed.check(task)
    except ConfigError as error:
        text = str(error).removeprefix("extra params: ")
        return {_key(text): text}
    return {}


def stamp(policy: Any) -> str:
    """Stands for a policy as Label Studio has it, so that a form knows whether it was changed meanwhile."""
    return hashlib.sha256(json.dumps(policy, sort_keys=True).encode()).hexdigest()[:32]


def _key(text: str) -> str:
    """The first key that a sentence names."""
    return next((name for name in re.findall(r'"(\w+)"', text) if name in Policy.model_fields), "")
