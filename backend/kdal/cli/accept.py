"""`kdal accept`: sure suggestions become annotations of kdal's, as many as can be promised to be right."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from kdal.console import interruptible, out, progress
from kdal_core.errors import ConfigError

if TYPE_CHECKING:
    from kdal.resources import Resources
    from kdal.rounds.accepting import Sure


def add_to(app: typer.Typer) -> None:
    """Add this command to the `kdal` command."""
    app.command()(accept)


def accept(
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.", min=1)],
    target: Annotated[
        float | None, typer.Option(help="Share of the accepted suggestions that has to be right, for example 0.99.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Chance at most that they are not.")] = 0.05,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which they would be.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was accepted and nobody has touched.")] = False,
) -> None:
    """Accept the surest suggestions unseen, as annotations that are marked as kdal's; classes only.

    Nothing is trained on them, and they count for no batch. A person's annotation of such a task counts as ever.
    """
    from kdal.settings import Settings

    if undo == (target is not None):
        raise ConfigError("give --target, for example `kdal accept --project 1 --target 0.99`, or --undo")
    if target is not None and not (0 < target < 1 and 0 < alpha <= 0.5):
        raise ConfigError("--target must lie between 0 and 1, and --alpha above 0 and at most 0.5")
    settings = Settings.load()
    if not settings.home_path.exists():
        raise ConfigError(f"no kdal has been started here: KDAL_HOME is {settings.home_path}, which is not there")
    from kdal.resources import Resources  # what loads it takes seconds

    with interruptible("Stopped. What was done is done; the same command goes on."):
        resources = Resources.open(settings)
        if target is None:
            _undo(resources, project, dry_run)
        else:
            _accept(resources, project, target, alpha, dry_run)


def _accept(resources: Resources, project: int, target: float, alpha: float, dry_run: bool) -> None:
    from kdal.labelstudio import accepting
    from kdal.rounds.accepting import alone, sure_suggestions

    with alone(resources.settings, project):
        sure = sure_suggestions(resources, project, target, alpha)
        out.print(sure.found.sentence)
        if sure.found.threshold is None:
            out.print("Nothing is accepted.")
            return
        if sure.already:
            out.print(f"{sure.already:,} of them are accepted already.")
        if dry_run or not sure.results:
            out.print(f"{len(sure.results):,} {'would be' if dry_run else 'are left to be'} accepted{_of(sure)}.")
            return
        # Noted first: labels drawn before no longer stand for what is left, however much of it is written.
        resources.storage.merge_round(project, sure.round, facts=sure.as_fact())
        with progress(out, "Accepting") as report:
            done = accepting.write(resources.label_studio, project, sure.results, report)
    out.print(f"Accepted {done:,} suggestions{_of(sure)}. They say that they are kdal's; nothing learns from them.")
    out.print(f"`kdal accept --project {project} --undo` takes back those that nobody has touched.")


def _undo(resources: Resources, project: int, dry_run: bool) -> None:
    from kdal.labelstudio import accepting
    from kdal.labelstudio.accepted import accepted_in
    from kdal.rounds.accepting import alone, forget

    client = resources.label_studio
    client.project(project)  # what is wrong with Label Studio is said first
    if dry_run:
        found = sum(len(accepted_in(row)) for row in client.tasks(project, labelled=True, full=True))
        out.print(f"{found:,} accepted suggestions of project {project} would be taken back.")
        return
    with alone(resources.settings, project):
        with progress(out, "Taking back") as report:
            gone = accepting.take_back(client, project, progress=report)
        forget(resources, project)
    out.print(f"Took back {gone:,} accepted suggestions of project {project}; what people have touched stays.")


def _of(sure: Sure) -> str:
    """ "; 12 cat, 3 dog": the classes of what is accepted."""
    counts = Counter(regions[0]["value"]["choices"][0] for regions in sure.results.values())
    most = ", ".join(f"{count:,} {name}" for name, count in counts.most_common(10))
    return f": {most}" + (f" and {len(counts) - 10} classes more" if len(counts) > 10 else "") if most else ""
