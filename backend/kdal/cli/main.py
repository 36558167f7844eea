"""The `kdal` command."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from dotenv import dotenv_values
from rich.console import Console

from kdal.settings import Settings
from kdal_core.errors import KdalError

app = typer.Typer(
    name="kdal",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A Label Studio ML backend that makes a labelling team need far fewer labels.",
)
out = Console(highlight=False, markup=False)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 9090,
    threads: Annotated[int, typer.Option(help="Requests answered at once.")] = 8,
) -> None:
    """Answer Label Studio: the ML-backend protocol. Rounds are computed by `kdal worker`."""
    from gunicorn.app.base import BaseApplication

    from kdal.resources import Resources
    from kdal.web.app import create_app

    settings = Settings.load()
    Resources.open(settings).storage.close()  # what is wrong with the settings is said here, not by gunicorn

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            # One process: models are in memory once. Threads: torch and the database wait outside the GIL.
            self.cfg.set("bind", f"{host}:{port}")
            self.cfg.set("workers", 1)
            self.cfg.set("threads", threads)
            self.cfg.set("worker_class", "gthread")
            self.cfg.set("timeout", 120)
            self.cfg.set("graceful_timeout", 10)
            self.cfg.set("keepalive", 75)
            self.cfg.set("loglevel", "warning")
            self.cfg.set("control_socket_disable", True)

        def load(self) -> Any:
            # In the worker process, after the fork: CUDA and database connections do not survive one.
            return create_app(Resources.open(settings))

    Server().run()


@app.command()
def worker() -> None:
    """Compute rounds: train, score, order, publish. Takes up whatever an earlier worker left unfinished."""
    from kdal.resources import Resources
    from kdal.rounds.worker import Worker

    resources = Resources.open(Settings.load())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ended = threading.Event()

    def leave_when_told() -> None:
        stop.wait()
        if not ended.wait(5):
            os._exit(0)  # a step under way is repeated by the next start, as after a power cut

    threading.Thread(target=leave_when_told, daemon=True).start()
    Worker(resources).run(stop)
    ended.set()


@app.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 9090,
) -> None:
    """Server and worker together, until Ctrl-C."""
    from kdal.processes.child import ProcessError, Supervisor

    Settings.load()
    kdal = [sys.executable, "-m", "kdal"]
    with Supervisor() as children:
        children.start("kdal serve", [*kdal, "serve", "--host", host, "--port", str(port)])
        children.start("kdal worker", [*kdal, "worker"])
        ended = children.wait()
    if ended is not None:
        raise ProcessError(f"{ended.name} ended by itself")


@app.command()
def connect(
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.")],
    params: Annotated[
        str | None, typer.Option(help="The project's policy as JSON, for example '{\"budget\": 100}'.")
    ] = None,
) -> None:
    """Make kdal the ML backend of a project: backend, webhook, order of the queue."""
    from kdal.labelstudio.client import LabelStudioClient
    from kdal.labelstudio.connection import connect_backend

    settings = Settings.load()
    client = LabelStudioClient(settings.label_studio_url, settings.label_studio_api_key)
    row = connect_backend(settings, client, project, params)
    out.print(f'Project {project} "{row["title"]}" is connected to {settings.url}.')
    out.print("A worker (`kdal worker`, or `kdal up`) now orders its queue; `kdal status` shows how it stands.")


@app.command("status")
def show_status(
    as_json: Annotated[bool, typer.Option("--json", help="All of it, for programs.")] = False,
) -> None:
    """How each project stands: round, labels counted, progress, problems."""
    from kdal.rounds.status import status, table
    from kdal.storage.database import Storage

    storage = Storage(Settings.load().sqlalchemy_url)
    report = status(storage)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        out.print(table(report))


@app.command()
def demo(
    project: Annotated[str, typer.Argument(help="What is labelled: digits, lanes or boxes.")] = "digits",
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path(".kdal-demo"),
    autopilot: Annotated[
        bool, typer.Option(envvar="AUTOPILOT", help="Let a program label, through Label Studio's API.")
    ] = False,
    once: Annotated[bool, typer.Option(envvar="ONCE", help="End instead of waiting for Ctrl-C.")] = False,
    rounds: Annotated[int | None, typer.Option(help="Rounds that the autopilot labels.", min=1)] = None,
    budget: Annotated[int | None, typer.Option(help="Labels of a round.", min=1)] = None,
    params: Annotated[str, typer.Option(help="More of the project's policy as JSON, as `kdal connect` takes it.")] = "",
    images: Annotated[int | None, typer.Option(help="Take so many of the images only.", min=1)] = None,
) -> None:
    """Label Studio, kdal and 1,797 handwritten digits, 600 rendered roads or 400 rendered blood cells, all in one."""
    from kdal.demo import run
    from kdal.demo.example import example
    from kdal.policy import Policy

    shown, policy = example(project), Policy.parse(params).model_dump(exclude_unset=True)
    policy |= {} if budget is None else {"budget": budget}
    run(shown, folder, autopilot_on=autopilot, once=once, rounds=rounds, params=policy, images=images)


@app.command("import")
def import_labels(
    folder: Annotated[Path, typer.Argument(help="A folder of lanes (TuSimple, CULane) or boxes (COCO, VOC, YOLO).")],
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.")],
    form: Annotated[
        str | None, typer.Option("--format", help="tusimple, culane, coco, voc or yolo; found out by default.")
    ] = None,
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="Take this label or list file of the folder alone; repeatable.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--images", help="Where Label Studio reads the folder itself, s3://bucket/prefix for one."),
    ] = None,
    labels: Annotated[
        str, typer.Option("--as", help="What becomes of its labels: annotations, predictions or none.")
    ] = "annotations",
    label: Annotated[str | None, typer.Option(help="Label of the lanes; the config's first by default.")] = None,
) -> None:
    """Make a labelled folder a Label Studio project's tasks. What is there already is left as it is."""
    from kdal.cli.datasets import run_import

    run_import(Settings.load(), project, folder, form, out, labels, lists=lists or [], address=address, label=label)


@app.command("export")
def export_labels(
    folder: Annotated[Path, typer.Argument(help="Where to; it must be empty or not there.")],
    project: Annotated[int, typer.Option(help="Number of the Label Studio project.")],
    form: Annotated[str, typer.Option("--format", help="tusimple, culane, coco, voc or yolo.")],
    images: Annotated[bool, typer.Option(help="Write the images too.")] = True,
    decimals: Annotated[int, typer.Option(help="Digits behind the point of a lane's pixel.", min=0, max=12)] = 6,
) -> None:
    """Write a Label Studio project's annotations as a folder of lanes or boxes in one of the usual forms."""
    from kdal.cli.datasets import run_export

    run_export(Settings.load(), project, folder, form, out, with_images=images, decimals=decimals)


@app.command()
def simulate(
    campaign: Annotated[str | None, typer.Argument(help="A campaign file, or the name of a shipped campaign.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="The campaigns that come with kdal.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of runs and report; default artifacts/simulate/<name>.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="KDAL_DATA", help="Folder of the data sets; default data.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default one for each CPU.", min=1)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of taking up what is there.")] = False,
) -> None:
    """Ask what active learning saves: a whole labelling campaign on data whose labels are known."""
    from kdal.cli.simulate import run_campaign, table_of_campaigns

    if show_list:
        out.print(table_of_campaigns())
        return
    if campaign is None:
        raise typer.BadParameter("Name a campaign file or a shipped campaign; --list shows these.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: its processes end with it
    try:
        run_campaign(campaign, folder, data=data, workers=workers, fresh=fresh, out=out)
    except KeyboardInterrupt:
        typer.echo("Interrupted; the same command goes on from here.", err=True)
        sys.exit(130)


@app.command()
def distill(
    file: Annotated[Path, typer.Argument(help="A YAML file: images, teacher, budget, student.")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of run and report; default artifacts/distill/<name>.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="KDAL_DATA", help="Folder of the data sets; default data.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Choose and train anew; answers that were paid for stay in the ledger.")
    ] = False,
) -> None:
    """Train a compact student from a black-box teacher, asking it about few images and within a budget."""
    from kdal.cli.distill import show_distillation

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        show_distillation(file, folder, Settings.load(), data=data, fresh=fresh, out=out)
    except KeyboardInterrupt:
        typer.echo("Interrupted; the same command goes on from here, and asks nothing twice.", err=True)
        sys.exit(130)


def main() -> None:
    """Entry point: an error of ours is a sentence on stderr and exit status 1, never a traceback."""
    for name, value in dotenv_values(".env").items():
        if name.startswith("AWS_") and value is not None:
            os.environ.setdefault(name, value)  # boto3 reads the environment, but no .env
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        app()
    except KdalError as error:
        typer.echo(f"kdal: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
