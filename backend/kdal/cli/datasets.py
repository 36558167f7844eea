"""`kdal import` and `kdal export` as people see them: a progress bar, what was done, what was left out and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from kdal.datasets.exporter import export_folder
from kdal.datasets.importer import import_folder
from kdal.datasets.lanes import Labels
from kdal.images.loader import ImageLoader
from kdal.labelstudio.client import LabelStudioClient
from kdal.settings import Settings
from kdal_core.datasets import BOX_FOLDERS, LANE_FOLDERS, detect
from kdal_core.errors import ConfigError

SHOWN = 20
"""Reasons that are printed, of those why something was left out."""


def run_import(
    settings: Settings, project: int, folder: Path, form: str | None, out: Console, labels: str, **options: Any
) -> None:
    """Import a folder; `options` are more of `import_folder`'s."""
    chosen = _form(form) if form is not None else detect(folder)
    if labels not in list(Labels):
        raise ConfigError(f"labels can become {', '.join(Labels)}, not {labels!r}")
    client = LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key)
    with _progress(out, "Importing") as progress:
        done = import_folder(
            client,
            ImageLoader(settings, client),
            project,
            folder,
            chosen,
            labels=Labels(labels),
            progress=progress,
            **options,
        )
    there = f", {done.present:,} were there already" if done.present else ""
    out.print(f"{done.created:,} images of {folder} are tasks of project {project} now{there}.")
    _print_reasons(out, "left out", done.left_out)


def run_export(settings: Settings, project: int, folder: Path, form: str, out: Console, **options: Any) -> None:
    """Export a project; `options` are those of `export_folder`."""
    chosen = _form(form)
    client = LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key)
    with _progress(out, "Exporting") as progress:
        done = export_folder(
            client, ImageLoader(settings, client), project, folder, chosen, progress=progress, **options
        )
    out.print(f"{done.written:,} labelled images of project {project} are in {folder} now.")
    _print_reasons(out, "written without their image", done.without_image)
    _print_reasons(out, "left out", done.left_out)


def _form(name: str) -> str:
    if name not in {**LANE_FOLDERS, **BOX_FOLDERS}:
        raise ConfigError(f"there is no format {name!r}, only {', '.join([*LANE_FOLDERS, *BOX_FOLDERS])}")
    return name


@contextmanager
def _progress(out: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is there meanwhile; it is told how many of how many are done."""
    with Progress(console=out, transient=True) as bar:
        row = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)


def _print_reasons(out: Console, what: str, reasons: Sequence[str]) -> None:
    if not reasons:
        return
    out.print(f"{len(reasons):,} {what}:")
    for reason in reasons[:SHOWN]:
        out.print(f"  {reason}")
    if len(reasons) > SHOWN:
        out.print(f"  and {len(reasons) - SHOWN:,} more")
