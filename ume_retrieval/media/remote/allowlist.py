"""Check hosts against an allow-list, and refuse private networks that the list does not name."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ume_retrieval.errors import InputError, RemoteNotAllowed

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_PATTERN = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\*", re.IGNORECASE)
_EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
"""Networks whose last 32 bits are an IPv4 address: NAT64 (RFC 6052), IPv4-translated (RFC 2765), IPv4-compatible."""

_LOCAL_TRANSLATION = ipaddress.ip_network("64:ff9b:1::/48")
"""Prefixes of a site's own translators (RFC 8215): where the IPv4 address is in them, only the site knows."""


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """A parsed allow-list.

    Attributes:
        patterns: Host names in lower case; `*.example.org` matches subdomains, `*` every name.
        networks: Allowed networks, which may be private.
    """

    patterns: tuple[str, ...]
    networks: tuple[Network, ...]

    @classmethod
    def of(cls, entries: Sequence[str]) -> AllowedHosts:
        """Parse names, patterns, addresses and networks.

        Raises:
            InputError: When an entry is invalid.

        Example:
            >>> AllowedHosts.of(["images.example.org", "*.example.com", "10.1.0.0/16"]).patterns
            ('images.example.org', '*.example.com')
        """
        if isinstance(entries, (str, bool)):
            raise InputError(
                f"{entries!r} is not a list of hosts", hint="name the hosts: allow_remote=['images.example.org']"
            )
        patterns: list[str] = []
        networks: list[Network] = []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not _PATTERN.fullmatch(entry):
                    raise InputError(
                        f"{entry!r} is not a host name, address or network",
                        hint="write it like 'images.example.org', '*.example.org' or '10.1.0.0/16'",
                    ) from None
                patterns.append(entry.lower())
        return cls(tuple(patterns), tuple(networks))

    def check_name(self, host: str) -> None:
        """Check that a host is on the list; raises RemoteNotAllowed when it is not."""
        literal = _address(host)
        if literal is not None:
            if any(literal in network for network in self.networks):
                return
        elif any(fnmatch.fnmatchcase(host.lower().rstrip("."), pattern) for pattern in self.patterns):
            return
        raise RemoteNotAllowed(f"{_shown(host)} is not among the allowed hosts", hint="add it to allow_remote")

    def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Connect to an allowed host by a checked address, without resolving its name a second time.

        Raises:
            RemoteNotAllowed: When the host is not on the list, or one of its addresses is in a private network that is
                not on the list.
            OSError: When the connection fails.
        """
        self.check_name(host)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for *_, place in found:
            self._check_address(host, ipaddress.ip_address(str(place[0]).partition("%")[0]))
        failure: OSError = OSError(f"{_shown(host)} does not resolve")
        for family, kind, protocol, _, place in found:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(timeout_s)
                connection.connect(place)
            except OSError as error:
                connection.close()
                failure = error
            else:
                return connection
        raise failure

    def _check_address(self, host: str, address: Address) -> None:
        reached = _reached(address)
        if any(one in network for network in self.networks for one in (address, *reached)):
            return
        if address in _LOCAL_TRANSLATION or not all(map(_is_public, reached)):
            raise RemoteNotAllowed(
                f"{_shown(host)} leads into a private network", hint="add the network to allow_remote if it is yours"
            )


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _reached(address: Address) -> tuple[Address, ...]:
    """Return the addresses to which a packet is delivered: the one itself, or those that a translator reads in it."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    if any(address in network for network in _EMBEDDING):
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    if address.teredo is not None:
        return address.teredo  # server and client
    inner = address.ipv4_mapped or address.sixtofour
    return (address,) if inner is None else (inner,)


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast and not getattr(address, "is_site_local", False)


def _shown(host: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in host)[:100]
