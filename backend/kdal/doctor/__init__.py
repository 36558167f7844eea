"""What may be wrong with an installation of kdal, part by part; what is wrong says what mends it."""

from __future__ import annotations

from collections.abc import Iterator

from kdal.doctor import label_studio, machine
from kdal.doctor.finding import Finding, checked
from kdal.settings import Settings

__all__ = ["Finding", "examine"]


def examine(settings: Settings) -> Iterator[Finding]:
    """What is found, part by part, as it is found.

    Nothing is changed, but for a file that is written to KDAL_HOME and to the assets, read and deleted again. A part
    that makes no sense without an earlier one that is wrong is left out.
    """
    yield checked("versions", machine.versions)
    home = checked("KDAL_HOME", lambda: machine.home(settings))
    yield home
    if home.ok:
        yield checked("disk", lambda: machine.disk(settings.home_path))
    tables = checked("database", lambda: machine.database(settings))
    yield tables
    if home.ok or settings.assets:
        yield checked("assets", lambda: machine.assets(settings))
    yield checked("device", lambda: machine.device(settings))
    if home.ok:
        yield checked("weights", lambda: machine.weights(settings))
    if tables.ok:
        yield checked("worker", lambda: machine.worker(settings))
    yield checked("kdal's address", lambda: label_studio.own_address(settings))
    server = checked("kdal's server", lambda: label_studio.own_server(settings))
    yield server
    there = checked("Label Studio", lambda: label_studio.answers(settings))
    yield there
    if not there.ok:
        return
    yield checked("clock", lambda: label_studio.clock(settings))
    token = checked("token", lambda: label_studio.token(settings))
    yield token
    if not token.ok:
        return
    yield checked("address allowed", lambda: label_studio.address_allowed(settings))
    if tables.ok and server.ok:
        yield checked("way back", lambda: label_studio.way_back(settings))
