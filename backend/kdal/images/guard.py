"""HTTP connections that go to public addresses, or to private ones that are allowed, and nowhere else.

A name is looked up once, each of its addresses is checked, and the connection is made to the address that was checked:
between a check and a second look-up a name server could change its mind. The same goes for each redirect.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy

from kdal.images.allowed import PORTS, Allowed


class ForbiddenPlaceError(requests.ConnectionError):
    """A host of a private network that nobody has allowed; told to nobody apart from one that is not there."""


class GuardedAdapter(HTTPAdapter):
    """Checks where a request goes before it goes there.

    Args:
        allowed: which hosts may be on private networks.
        options: of requests' own adapter.
    """

    def __init__(self, allowed: Allowed, **options: Any) -> None:
        self._allowed = allowed
        super().__init__(**options)

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """A connection to the address that was checked; TLS still asks for the certificate of the name."""
        if select_proxy(str(request.url), proxies) is not None:
            self._check_literal(str(urlsplit(request.url).hostname))
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        host_params, pool_kwargs = self.build_connection_pool_key_attributes(request, verify, cert)
        name = str(host_params["host"])
        host_params["host"] = self._checked(name, int(host_params["port"] or PORTS[host_params["scheme"]]))
        if host_params["scheme"] == "https":
            tls: dict[str, Any] = {"server_hostname": name, "assert_hostname": name}
            return self.poolmanager.connection_from_host(**host_params, pool_kwargs={**pool_kwargs, **tls})
        return self.poolmanager.connection_from_host(**host_params, pool_kwargs=pool_kwargs)

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """As requests', with the name in the Host header: the connection knows an address alone."""
        request.headers["Host"] = urlsplit(str(request.url)).netloc.rpartition("@")[2]
        return super().send(request, *args, **options)

    def _check_literal(self, host: str) -> None:
        """Through a proxy, names are looked up there: it is the proxy's business where those lead."""
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return
        if not self._allowed.peer(host, 0, host):
            raise ForbiddenPlaceError(f"{host} is on a private network")

    def _checked(self, host: str, port: int) -> str:
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise requests.ConnectionError(f"{host} is not known") from error
        addresses = [str(row[4][0]) for row in found]
        if not addresses or not all(self._allowed.peer(host.strip("[]"), port, ip) for ip in addresses):
            raise ForbiddenPlaceError(f"{host} is on a private network")
        return addresses[0]
