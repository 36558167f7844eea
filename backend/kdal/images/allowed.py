"""Where kdal may read images: what a project's tasks and storages name, and what KDAL_IMAGE_SOURCES allows.

Addresses come out of task data, which whoever imports tasks writes. What is refused is answered with the same words,
whatever is there, so that nobody can look around by means of kdal.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from kdal.aliases import Json
from kdal.settings import Settings

REFUSED = (
    "not among the places where this project's images may be: the hosts of its tasks, its storages in Label Studio, "
    "and what KDAL_IMAGE_SOURCES names"
)
PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 addresses that stand for the IPv4 address in their last four bytes."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Place = tuple[str, int]
"""A host and a port."""


@dataclass(frozen=True)
class Sources:
    """Where a project's images are, as Label Studio's API shows its tasks and storages."""

    hosts: frozenset[str] | None = frozenset()
    """Of the web addresses of its tasks; None: whichever they are."""
    buckets: frozenset[str] = frozenset()
    """Of its S3 storages."""
    endpoints: frozenset[str] = frozenset()
    """Addresses of the stores that hold these buckets, where they are not Amazon's."""

    @classmethod
    def of(cls, addresses: Iterable[str], storages: Iterable[Json]) -> Self:
        """Those of tasks with these addresses, and of these S3 storages of Label Studio's API."""
        rows = list(storages)
        return cls(
            hosts=frozenset(filter(None, map(web_host, addresses))),
            buckets=frozenset(str(row["bucket"]) for row in rows if row.get("bucket")),
            endpoints=frozenset(str(row["s3_endpoint"]) for row in rows if row.get("s3_endpoint")),
        )

    @classmethod
    def from_json(cls, value: Json | None) -> Self:
        """What `as_json` made; nothing of a snapshot of kdal 0.2, which held none."""
        names = ("hosts", "buckets", "endpoints")
        return cls(**{name: frozenset(map(str, (value or {}).get(name, ()))) for name in names})

    def as_json(self) -> Json:
        """For a file."""
        return {name: sorted(getattr(self, name) or ()) for name in ("hosts", "buckets", "endpoints")}

    def __or__(self, other: Sources) -> Sources:
        """The places of both."""
        hosts = None if self.hosts is None or other.hosts is None else self.hosts | other.hosts
        return Sources(hosts, self.buckets | other.buckets, self.endpoints | other.endpoints)


def web_host(address: str) -> str | None:
    """The host of an http or https address; None of any other text."""
    try:
        parts = urlsplit(address)
        return parts.hostname if parts.scheme in PORTS else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Allowed:
    """What KDAL_IMAGE_SOURCES, Label Studio's own addresses and a project's sources allow together."""

    sources: Sources | None = None
    """None: of no project in particular, any public host."""
    hosts: frozenset[str] = frozenset()
    places: frozenset[Place] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = field(default=())
    buckets: frozenset[str] = frozenset()

    @classmethod
    def by(cls, settings: Settings, sources: Sources | None) -> Self:
        """For a project with these sources."""
        urls = [settings.label_studio_url, settings.label_studio_public_url]
        urls += [os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")]
        urls += sources.endpoints if sources is not None else ()
        hosts, places, networks, buckets = set(), set(filter(None, map(_place, urls))), [], set()
        for item in settings.image_sources_list:
            if item.startswith("s3://"):
                buckets.add(item.removeprefix("s3://").strip("/"))
            elif (network := _network(item)) is not None:
                networks.append(network)
            elif (place := _place(f"http://{item}", port=None)) is not None:
                places.add(place)
            else:
                hosts.add(item.lower())
        return cls(sources, frozenset(hosts), frozenset(places), tuple(networks), frozenset(buckets))

    def bucket(self, name: str) -> bool:
        """Whether objects of a bucket may be read."""
        return name in self.buckets or (self.sources is not None and name in self.sources.buckets)

    def host(self, address: str) -> bool:
        """Whether a web address may be tried at all: its host is one of the project's, or is named by the settings."""
        host = web_host(address)
        if host is None:
            return False
        if self.sources is None or self.sources.hosts is None or host in self.sources.hosts:
            return True
        if host in self.hosts or _place(address) in self.places:
            return True
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(ip in network for network in self.networks)

    def peer(self, host: str, port: int, ip: str) -> bool:
        """Whether a connection to a host may be made that has this address: it is public, or named by the settings."""
        if host.lower() in self.hosts or (host.lower(), port) in self.places:
            return True
        address = _meant(ipaddress.ip_address(ip.partition("%")[0]))
        return is_public(address) or any(address in network for network in self.networks)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet: no loopback, private, link-local, shared or reserved one."""
    address = _meant(address)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64 or address.packed[:12] == bytes(12):
            return ipaddress.IPv4Address(address.packed[-4:])
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _place(url: str, port: int | None = 0) -> Place | None:
    """Host and port of an address; with ``port=None`` only of one that names a port."""
    try:
        parts = urlsplit(url)
        named = parts.port
    except ValueError:
        return None
    if not parts.hostname or (named is None and port is None):
        return None
    return parts.hostname, named or PORTS.get(parts.scheme, 0)
