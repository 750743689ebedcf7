"""Which addresses are public, and sockets that lead to no others."""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from kie_cover_async.validation import Network

from .connections import Target

# All that is assigned to hosts of the internet lies in here; outside it are loopback, private and
# link-local addresses, multicast, and forms that hold an IPv4 address.
_UNICAST_6 = IPv6Network("2000::/3")
# What IANA's registry of special addresses has; `is_global` differs between releases of Python.
_SPECIAL = [
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared behind a carrier's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, where clouds keep their secrets
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments, Teredo among them, which holds an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
]
# The forms whose IPv4 address is checked instead, since that is the host that is reached: mapped
# ones, and NAT64 (RFC 6052), which every name without an IPv6 address gets in an IPv6-only network.
_HOLD_IPV4 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")


class NotPublicError(OSError):
    """The address is not public, so images must not be fetched from it.

    The text is the same for all of them: aiohttp, which tries all addresses of a host, keeps the
    class of their errors only if all have the same text.
    """

    def __init__(self, address: str) -> None:
        super().__init__("no public address")
        self.address: str = address


def is_public(host: str, allowed: Sequence[Network] = ()) -> bool:
    """Return whether the text is an address of the public internet or of an allowed network.

    `2130706433` and `0x7f.1` are not addresses here, although resolvers take them for loopback.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    reached = _reached(address)
    if any(each in network for each in (address, reached) for network in allowed):
        return True
    is_unicast = isinstance(reached, IPv4Address) or reached in _UNICAST_6
    return is_unicast and not any(reached in network for network in _SPECIAL)


def _reached(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for, else the address itself."""
    if any(address in network for network in _HOLD_IPV4):
        return IPv4Address(address.packed[-4:])
    return address


def public_socket(target: Target, allowed: Sequence[Network] = ()) -> socket.socket:
    """Return a socket for a connection to this very address.

    Raises:
        NotPublicError: The address is neither public nor of an allowed network.
    """
    family, kind, protocol, _, (host, *rest) = target
    # An IPv6 address may be followed by its zone: after the port and the flow.
    if any(rest[2:]) or not is_public(str(host), allowed):
        raise NotPublicError(str(host))
    return socket.socket(family, kind, protocol)
