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
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


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
        meant = _embedded_ipv4(address)
        if any(one in network for network in self.networks for one in (address, meant)):
            return
        if not meant.is_global or meant.is_multicast or getattr(meant, "is_site_local", False):
            raise RemoteNotAllowed(
                f"{_shown(host)} leads into a private network", hint="add the network to allow_remote if it is yours"
            )


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _embedded_ipv4(address: Address) -> Address:
    """Return the IPv4 address embedded in an IPv6 one, to which a translator would deliver."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64 or int(address) >> 32 == 0:  # the latter: "IPv4-compatible", deprecated
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
    return inner or address


def _shown(host: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in host)[:100]
