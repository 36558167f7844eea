"""`kdal import` and `kdal export`: how far they are, what was done, what was left out and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdal.console import out, progress
from kdal_core.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from kdal.settings import Settings

SHOWN = 20
"""Reasons that are printed, of those why something was left out, unless all are asked for."""


def add_to(app: typer.Typer) -> None:
    """Add these commands to the `kdal` command."""
    app.command("import")(import_labels)
    app.command("export")(export_labels)


def import_labels(
    folder: Annotated[Path, typer.Argument(help="A folder of lanes (TuSimple, CULane) or boxes (COCO, VOC, YOLO).")],
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.", min=1)],
    form: Annotated[
        str | None, typer.Option("--format", help="tusimple, culane, coco, voc or yolo; by default it is recognised.")
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option("--list", help="Import only this label or list file of the folder; can be repeated."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--images", help="Upload nothing: Label Studio reads the images here, for example s3://bucket/prefix."
        ),
    ] = None,
    labels: Annotated[
        str, typer.Option("--as", help="What the labels become: annotations, predictions or none.")
    ] = "annotations",
    label: Annotated[
        str | None, typer.Option(help="Label of the lanes; by default the first of the labelling config.")
    ] = None,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Upload images that are links to files outside the folder.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name everything that was left out.")] = False,
) -> None:
    """Import a labelled folder as tasks of a Label Studio project. What is there already is left as it is.

    An image that cannot be used is left out and named; a label that cannot be used is named, and its image comes in
    without it.
    """
    from kdal.settings import Settings

    options = {"lists": lists or [], "address": address, "label": label, "follow_links": follow_links}
    run_import(Settings.load(), project, folder, form, out, labels, shown=None if verbose else SHOWN, **options)


def export_labels(
    folder: Annotated[Path, typer.Argument(help="Where to write; it must be empty or not exist.")],
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.", min=1)],
    form: Annotated[str, typer.Option("--format", help="tusimple, culane, coco, voc or yolo.")],
    images: Annotated[bool, typer.Option(help="Write the images too.")] = True,
    decimals: Annotated[int, typer.Option(help="Decimal places of a lane's pixels.", min=0, max=12)] = 6,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name everything that was left out.")] = False,
) -> None:
    """Write the annotations of a Label Studio project as a folder of lanes or boxes in one of the usual formats."""
    from kdal.settings import Settings

    options = {"with_images": images, "decimals": decimals}
    run_export(Settings.load(), project, folder, form, out, shown=None if verbose else SHOWN, **options)


def run_import(
    settings: Settings,
    project: int,
    folder: Path,
    form: str | None,
    console: Console,
    labels: str,
    *,
    shown: int | None = SHOWN,
    **options: Any,
) -> None:
    """Import a folder; `options` are more of `import_folder`'s. All reasons are printed where `shown` is None.

    Raises:
        ConfigError: no image became a task, and none was one.
    """
    from kdal.datasets.adapter import adapter_of, detect_form
    from kdal.datasets.importer import import_folder
    from kdal.datasets.tasks import Labels
    from kdal.images.loader import ImageLoader
    from kdal.labelstudio.client import LabelStudioClient

    chosen = form if form is not None else detect_form(folder)
    adapter_of(chosen)  # before Label Studio is asked
    if labels not in list(Labels):
        raise ConfigError(f"labels can become {', '.join(Labels)}, not {labels!r}")
    client = LabelStudioClient.of(settings)
    with progress(console, "Importing") as report:
        done = import_folder(
            client,
            ImageLoader(settings, client),
            project,
            folder,
            chosen,
            labels=Labels(labels),
            progress=report,
            **options,
        )
    there = f", {done.present:,} were there already" if done.present else ""
    console.print(f"{done.created:,} images of {folder} are tasks of project {project} now{there}.")
    _print_reasons(console, "of its labels or lines could not be used as they are", done.notes, shown)
    _print_reasons(console, "left out", done.left_out, shown)
    if done.left_out and not done.created and not done.present:
        raise ConfigError(f"{folder}: none of its images could be imported: {done.left_out[0]}")


def run_export(
    settings: Settings,
    project: int,
    folder: Path,
    form: str,
    console: Console,
    *,
    shown: int | None = SHOWN,
    **options: Any,
) -> None:
    """Export a project; `options` are those of `export_folder`. All reasons are printed where `shown` is None."""
    from kdal.datasets.adapter import adapter_of
    from kdal.datasets.exporter import export_folder
    from kdal.images.loader import ImageLoader
    from kdal.labelstudio.client import LabelStudioClient

    adapter_of(form)  # before Label Studio is asked
    client = LabelStudioClient.of(settings)
    with progress(console, "Exporting") as report:
        done = export_folder(client, ImageLoader(settings, client), project, folder, form, progress=report, **options)
    console.print(f"{done.written:,} labelled images of project {project} are in {folder} now.")
    if done.accepted:
        console.print(f"{done.accepted:,} left out that no person has labelled: `kdal accept` has accepted them.")
    _print_reasons(console, "written under another name", done.renamed, shown)
    _print_reasons(console, "written without their image", done.without_image, shown)
    _print_reasons(console, "left out", done.left_out, shown)


def _print_reasons(console: Console, what: str, reasons: Sequence[str], shown: int | None) -> None:
    if not reasons:
        return
    console.print(f"{len(reasons):,} {what}:")
    for reason in reasons[:shown]:
        console.print(f"  {reason}")
    if shown is not None and len(reasons) > shown:
        console.print(f"  and {len(reasons) - shown:,} more, which --verbose names")
