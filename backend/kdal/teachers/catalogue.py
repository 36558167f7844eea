"""The teachers that projects may name: the file behind KDAL_TEACHERS.

Whoever may edit a project in Label Studio writes its policy. So a policy only names a teacher; its address, its
secret and what it may cost are written down here, by whoever runs kdal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from kdal.policy import Policy
from kdal.teachers import classes_of
from kdal.teachers.config import problems
from kdal.teachers.terms import TeacherBudget, read_yaml
from kdal_core.distillation import SoftLabelTask
from kdal_core.errors import ConfigError, KdalError
from kdal_core.models import check_model
from kdal_core.tasks import Task

Name = Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")]
FILE: TypeAdapter[dict[str, TeacherBudget]] = TypeAdapter(dict[Name, TeacherBudget])


class Catalogue:
    """Teachers by name.

    Args:
        terms: name -> teacher, and on what terms it may be asked.

    Raises:
        ConfigError, AssetError: a teacher's file is missing or no teacher's.
    """

    def __init__(self, terms: Mapping[str, TeacherBudget]) -> None:
        self._terms = dict(terms)
        # Now rather than at each /setup, which Label Studio sends often and waits for.
        self._classes = {name: classes_of(offered.teacher) for name, offered in terms.items()}

    def terms(self, name: str) -> TeacherBudget:
        """The teacher of this name.

        Raises:
            ConfigError: there is none; says which there are, and where they are described.
        """
        if not self._terms:
            raise ConfigError(
                f'extra params: "black_box": there is no teacher "{name}": whoever runs kdal describes teachers in a '
                "YAML file and sets KDAL_TEACHERS to its path"
            )
        if name not in self._terms:
            raise ConfigError(
                f'extra params: "black_box": there is no teacher "{name}"; known: {", ".join(sorted(self._terms))} '
                "(described in the file that KDAL_TEACHERS names where kdal runs)"
            )
        return self._terms[name]

    def check(self, policy: Policy, task: Task) -> None:
        """Refuse a policy whose teacher cannot teach a project's labels.

        Raises:
            ConfigError: no such teacher, another kind of labels, other classes, or a student that cannot be built.
        """
        if policy.black_box is None:
            return
        self.terms(policy.black_box)
        if task.kind != SoftLabelTask.kind:
            raise ConfigError('extra params: "black_box": such a teacher names classes: it needs <Choices>')
        known = self._classes[policy.black_box]
        if set(known) != set(task.classes):
            raise ConfigError(
                f'labelling config: the teacher "{policy.black_box}" knows the classes {", ".join(known)}; the choices '
                f"must be the same, in any order: {_difference(known, task.classes)}"
            )
        if policy.student is not None:
            side = policy.image_size or task.defaults.longest_side
            check_model(policy.student, len(known), (side, side))


def load_catalogue(path: Path | None) -> Catalogue:
    """The teachers of a YAML file, ``{name: {teacher: {...}, budget: ..., price: ...}}``; none without a file.

    Raises:
        ConfigError: there is no such file, or it holds something else; names the key.
    """
    if path is None:
        return Catalogue({})
    try:
        return Catalogue(FILE.validate_python(read_yaml(path)))
    except ValidationError as error:
        raise ConfigError(f"KDAL_TEACHERS: {str(path)!r}: {problems(error)}") from error
    except KdalError as error:
        raise ConfigError(f"KDAL_TEACHERS: {error}") from error


def _difference(teacher: tuple[str, ...], choices: tuple[str, ...]) -> str:
    missing, unknown = sorted(set(teacher) - set(choices)), sorted(set(choices) - set(teacher))
    parts = [("no <Choice> for", missing), ("the teacher does not know", unknown)]
    return "; ".join(f"{words} {', '.join(names)}" for words, names in parts if names)
