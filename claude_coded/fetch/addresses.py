"""Where images may be fetched from: no client shall see through the daemon what it cannot see itself.

A name is resolved here, its addresses are checked, and the connection is made to one of those: a name that
resolves to something else a moment later changes nothing.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Resolver: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Returns the addresses of a host for a port; none where it is not known."""

PORTS: Final = frozenset({80, 443})
"""Other ports of public addresses are refused: behind them are services that trust their neighbours."""

NAT64: Final = IPv6Network("64:ff9b::/96")
GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
REFUSED: Final = (
    IPv4Network("168.63.129.16/32"),  # Azure's machine agent: public by its number only
    IPv4Network("192.0.0.0/24"),  # protocols; Oracle's machine data
    IPv4Network("192.88.99.0/24"),  # relays of 6to4
)
REFUSED_6: Final = (
    IPv6Network("2001::/23"),  # protocols, Teredo's tunnels among them
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),  # 6to4: leads to the IPv4 address inside
    IPv6Network("3fff::/20"),
)
"""What Python's own tables, which differ by version, may count as global."""


class Unreachable(Exception):
    """A URL that cannot or must not be fetched; the message says why, for the client."""


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, for one machine.

    An IPv4 address inside an IPv6 one (mapped, or by NAT64) is what counts.
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in NAT64:
            inner = IPv4Address(address.packed[-4:])
        if inner is None:
            listed = any(address in network for network in REFUSED_6)
            return address in GLOBAL_UNICAST and address.is_global and not listed
        address = inner
    listed = any(address in network for network in REFUSED)
    return address.is_global and not address.is_multicast and not listed


def may_reach(address: Address, port: int) -> bool:
    """Return whether an image may be fetched from there."""
    return port in PORTS and is_public(address)


async def look_up(host: str, port: int) -> Sequence[Address]:
    """Return a host's addresses by the machine's resolver, in its order."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(ip_address(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True)
class Network:
    """How the outside is reached. `tls` returns the context that checks certificates; None: the system's."""

    resolve: Resolver = look_up
    allowed: Callable[[Address, int], bool] = may_reach
    tls: Callable[[], ssl.SSLContext] | None = None
