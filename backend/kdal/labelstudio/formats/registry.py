"""Which control of a labelling config kdal serves: the formats, found by their files or entry points, are asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdal.labelstudio.formats.base import Control, Format, controls
from kdal.policy import Policy
from kdal_core.errors import ConfigError
from kdal_core.plugins import Plugins

FORMATS: Plugins[type[Format]] = Plugins(
    sort="label format",
    package="kdal.labelstudio.formats",
    attribute="FORMAT",
    group="kdal.formats",
    part=type,
    first=("choices", "rectangles", "vectors", "vector", "keypoints", "polygons", "brushes"),
)
SHOWN = 5
"""Controls that a sentence names at most."""
INSTEAD = {
    "Labels": "<RectangleLabels> in place of <Labels> with <Rectangle>",
    "Rectangle": "<RectangleLabels> in place of <Rectangle>",
    "Taxonomy": '<Choices choice="single"> in place of <Taxonomy>',
}
"""What to write in place of tags that people often have for what kdal serves."""


def format_for(label_config: str, policy: Policy | None = None) -> Format:
    """How the labels of a labelling config are read and written.

    Of several controls that kdal could serve, one that is drawn on the image comes before one that is not: boxes
    before the choices beside them. All others are left alone.

    Args:
        label_config: the project's labelling config, XML.
        policy: the project's; its `task` says which kind of labels is meant. None: the defaults.

    Raises:
        ConfigError: the config has no control tag that kdal serves, several of one rank, or one that is not bound to
            an image; the message names the tag, and what to write.
    """
    policy = policy or Policy()
    found = controls(label_config)
    control, form = _served(found, policy)
    return form(replace(control, others=tuple(other for other in found if other is not control)))


def format_of(kind: str, label_config: str) -> Format:
    """How labels of this kind are read and written, where it is known that they are of this kind.

    A config that has no control for them gives what `format_for` gives: whoever asked says what is missing.

    Raises:
        ConfigError: as `format_for`.
    """
    try:
        return format_for(label_config, Policy(task=kind))
    except ConfigError:
        return format_for(label_config)


def notes(label_config: str, policy: Policy | None = None) -> tuple[str, ...]:
    """What the owner of a project should know of how kdal reads its labelling config, one sentence each.

    Raises:
        ConfigError: as `format_for`.
    """
    found = controls(label_config)
    control, _ = _served(found, policy or Policy())
    others = [other for other in found if other is not control]
    said = []
    if others:
        said.append(f"kdal serves {control} and leaves {_listed(others, 'and')} alone")
    if control.conditional:
        said.append(
            f"{control} is shown at some times only (visibleWhen, whenChoiceValue): an annotation without regions of "
            "it counts as no label"
        )
    return tuple(said)


def _served(found: Sequence[Control], policy: Policy) -> tuple[Control, type[Format]]:
    """The control to serve, and its format."""
    forms = list(FORMATS.values())
    matching = [(control, form) for control in found for form in forms if form.matches(control, policy)]
    if not matching:
        raise _refusal(found, forms, policy)
    drawn = [(control, form) for control, form in matching if form.draws]
    best = drawn or matching
    control, form = best[0]
    kinds = dict.fromkeys(form.kind for _, form in best)
    if len(kinds) > 1:
        several = _listed([control for control, _ in best], "and")
        choices = " or ".join(f'{{"task": "{kind}"}}' for kind in kinds)
        raise ConfigError(
            f"labelling config: kdal learns one kind of label a project, found {several}: say in the extra params "
            f"which, {choices}"
        )
    # Those count too that would be served if they stood alone: a lane may be drawn with either.
    named = policy.model_copy(update={"task": form.kind})
    rivals = [c for c in found if any(f.kind == form.kind and f.matches(c, named) for f in forms)]
    if len(rivals) > 1:
        raise ConfigError(
            f"labelling config: kdal serves one control tag a project, found {_listed(rivals, 'and')}: keep one of "
            "them, or give each a project of its own"
        )
    return control, form


def _refusal(found: Sequence[Control], forms: Sequence[type[Format]], policy: Policy) -> ConfigError:
    """Why nothing is served, and what to write."""
    known = [(control, form) for control in found for form in forms if form.tag == control.tag]
    served = _tags(forms)
    others = _listed(found, "and") or "no control tag at all"
    if policy.task is not None and not any(form.kind == policy.task for _, form in known):
        wanted = _tags([form for form in forms if form.kind == policy.task])
        needs = f"needs {wanted} on an <Image>" if wanted else "has no label format that kdal knows"
        return ConfigError(f'extra params: "task": "{policy.task}" {needs}, found {others}')
    for control, form in known:
        if policy.task is None and form.matches(control, policy.model_copy(update={"task": form.kind})):
            return ConfigError(
                f"labelling config: kdal takes {control} for {form.kind} only if the extra params say so, "
                f'{{"task": "{form.kind}"}}: of other shapes drawn with it, kdal learns nothing. It serves {served} on '
                "an <Image>"
            )
    for control, form in known:
        if policy.task in (None, form.kind):
            try:
                form(control)
            except ConfigError as error:
                return error
    return ConfigError(f"labelling config: kdal serves {served} on an <Image>, found {others}{_hint(found, forms)}")


def _hint(found: Sequence[Control], forms: Sequence[type[Format]]) -> str:
    """What to write in place of what was found, where that is clear."""
    tags = {form.tag.lower(): form.tag for form in forms}
    for control in found:
        local = control.tag.rpartition("}")[2]
        if (right := tags.get(local.lower())) is not None:
            space = ", without a namespace" if local != control.tag else ""
            return f": write <{right}>{space}, or Label Studio refuses predictions for it"
        if control.tag in INSTEAD:
            return f": write {INSTEAD[control.tag]}"
    return ""


def _tags(forms: Sequence[type[Format]]) -> str:
    return ", ".join(f"<{form.tag}>" for form in forms)


def _listed(found: Sequence[Control], word: str) -> str:
    """Controls in words: "A, B and C"."""
    shown = [str(control) for control in found[:SHOWN]]
    if len(found) > SHOWN:
        shown.append(f"{len(found) - SHOWN} more")
    return f" {word} ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))
