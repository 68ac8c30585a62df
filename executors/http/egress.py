"""Where a request may go: the rules that a URL must pass, and the address that is then connected to."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

import httpcore
import httpx

from executors.errors import BadCallError, BlockedError, ConfigError, TransientError

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host for a port."""

PORTS = {"http": 80, "https": 443}
MAX_URL = 8192

_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_TUNNELS_AND_TESTS = [ipaddress.ip_network(n) for n in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_NOT_OPEN = [ipaddress.ip_network(n) for n in ("192.88.99.0/24", "168.63.129.16/32")]
"""Relays of 6to4, and where Azure tells a machine its secrets."""
_PATIENCE = 2.0
"""Seconds after which the next address of a host is tried."""
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, also where it hides an IPv4 address within IPv6.

    Only plain global unicast counts: not multicast, documentation, 6to4, Teredo or ISATAP; a NAT64 or mapped address
    counts if the IPv4 address inside it does.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return False
        inner = ip.ipv4_mapped or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        tunnel = any(ip in network for network in _TUNNELS_AND_TESTS) or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP
        return ip in _UNICAST and ip.is_global and not tunnel
    closed = ip.is_multicast or ip.is_reserved or any(ip in network for network in _NOT_OPEN)
    return ip.is_global and not closed


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that passed the rules, taken apart."""

    scheme: str
    host: str
    port: int
    path: str
    """Path and query as they are sent."""

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


class Guard:
    """Decides where requests may go. What it refuses raises ``BlockedError``."""

    def __init__(
        self, allow: Iterable[str] = (), allow_private: Iterable[str] = (), resolve: Resolve | None = None
    ) -> None:
        """
        Args:
            allow: hosts of the open internet, such as ``api.example.com``, ``*.example.com`` for every name below it,
                or ``api.example.com:8443`` for a port other than 80 and 443.
            allow_private: exact ``host:port`` pairs that may be reached wherever they are, such as ``127.0.0.1:8080``.
            resolve: gives a host's addresses; the system's resolver by default.

        Raises:
            ConfigError: an entry of either list cannot be read.
        """
        self.allow = frozenset(_entry(item, private=False) for item in allow)
        self.allow_private = frozenset(_entry(item, private=True) for item in allow_private)
        self.resolve = resolve or _system_addresses

    def check(self, url: str) -> Target:
        """The target of a URL, if requests may be sent there.

        Raises:
            BlockedError: a rule forbids it.
            BadCallError: it is no absolute http or https URL at all.
        """
        if len(url) > MAX_URL:
            raise BadCallError(f"the URL has {len(url)} characters, more than {MAX_URL}")
        if any(not "!" <= sign <= "~" for sign in url) or "\\" in url:
            raise BlockedError("the URL holds a space, backslash, control or non-ASCII character; percent-encode it")
        parts, port = _split(url)
        if not parts.scheme:
            raise BadCallError(f"{url!r} is no absolute URL; begin with http:// or https://")
        if parts.scheme not in PORTS:
            raise BlockedError(f"the scheme {parts.scheme!r} is not allowed; use http or https")
        host = parts.hostname
        if not host:
            raise BadCallError(f"{url!r} names no host; give an absolute URL such as https://api.example.com/path")
        if "@" in parts.netloc:
            raise BlockedError("the URL holds a user name or password; leave them out")
        target = Target(parts.scheme, host, port or PORTS[parts.scheme], _path(parts))
        self._check_host(host, target.port, parts.netloc)
        _check_agreement(target)
        return target

    def _check_host(self, host: str, port: int, netloc: str) -> None:
        if (host, port) in self.allow_private:
            return
        if netloc.startswith("[") or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise BlockedError(f"{host!r} is an IP address; use the name of an allowed host")
        if not is_name(host):
            raise BlockedError(f"{host!r} is not a plain host name")
        names = {host} | {"*." + host.split(".", n)[n] for n in range(1, host.count(".") + 1)}
        ports = {at for name, at in self.allow if name in names}
        if not ports:
            listed = sorted({name for name, _ in self.allow}) or ["none"]
            more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
            raise BlockedError(f"the host {host!r} is not allowed; allowed: {', '.join(listed[:5])}{more}")
        if port not in ports and not (None in ports and port in PORTS.values()):
            raise BlockedError(f"port {port} of {host!r} is not allowed; allowed: 80 and 443 unless the config adds it")

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, each of which may be connected to.

        Raises:
            BlockedError: one of them is not of the open internet.
            TransientError: it has none at present.
        """
        try:
            found = await self.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise TransientError(f"the host {host!r} was not found: {error}") from error
        if not found:
            raise TransientError(f"the host {host!r} has no address")
        if (host, port) not in self.allow_private and not all(map(is_public, found)):
            raise BlockedError(f"the host {host!r} leads to an address that is not of the open internet")
        return found


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to the very addresses that the guard has looked up and passed, and to no others."""

    def __init__(self, guard: Guard, inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        self.guard = guard
        self.inner = inner or cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers; TLS still asks for the host's name."""
        addresses = await self.guard.addresses(host, port)
        for address in addresses[:-1][:3]:
            try:
                return await self.inner.connect_tcp(address, port, _PATIENCE, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self.inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Sockets of this machine are never reached."""
        raise BlockedError("sockets of this machine are not allowed")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self.inner.sleep(seconds)


def is_name(host: str) -> bool:
    """Whether a text is a plain host name, in small letters."""
    return _NAME.fullmatch(host) is not None


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError as error:
        raise BadCallError(f"{url!r} is no URL: {error}") from error


def _path(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _check_agreement(target: Target) -> None:
    """A second parser has to read the URL alike: what parsers disagree on is how guards are slipped past."""
    try:
        other = httpx.URL(target.url)
    except httpx.InvalidURL as error:
        raise BadCallError(f"{target.url!r} is no URL: {error}") from error
    if (other.scheme, other.host, other.port or PORTS[target.scheme]) != target.origin or other.userinfo:
        raise BlockedError(f"{target.url!r} can be read in more than one way")


def _entry(item: str, *, private: bool) -> tuple[str, int | None]:
    """An entry of an allow-list as host and port; a host of the open internet may leave its port out."""
    problem = ConfigError(
        f"{item!r} cannot stand in {'allow_private' if private else 'allow'}; write "
        + ("a host and a port, such as '127.0.0.1:8080'" if private else "a host, such as 'api.example.com'")
    )
    try:
        parts = urlsplit(f"//{item}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise problem from error
    if parts.path or parts.query or "@" in item or not host or (private and port is None):
        raise problem
    if not private and not is_name(host.removeprefix("*.")):
        raise problem
    return host, port


async def _system_addresses(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
