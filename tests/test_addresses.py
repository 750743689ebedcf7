import socket
from ipaddress import ip_network

import pytest

from kie_cover_async.transport.addresses import NotPublicError, is_public, public_socket

PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "223.255.255.255",
    "2001:200::1",
    "2003::1",
    "2606:4700::6810:84e5",
    "2a00:1450:4001:80b::200e",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
]

REFUSED = {
    "this network": ["0.0.0.1", "0.1.2.3"],
    "private": ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "behind a carrier's NAT": ["100.64.0.1", "100.127.255.255"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "link-local": ["169.254.169.254", "fe80::1", "febf::1"],
    "protocol assignments": ["192.0.0.8", "2001:1::1", "2001:20::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1", "fec0::1"],
    "unspecified": ["::"],
    "unique local": ["fc00::1", "fd12:3456::1"],
    "discarded": ["100::1"],
    "IPv4 mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:198.18.0.5"],
    "IPv4 compatible": ["::127.0.0.1", "::10.0.0.1"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::c612:5"],
    "NAT64 of a prefix of one's own": ["64:ff9b:1::a00:1", "64:ff9b:1::101:101"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "192.88.99.1"],
    "Teredo": ["2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "with a zone": ["fe80::1%eth0", "2606:4700::6810:84e5%1"],
    "no address": ["2130706433", "0x7f.1", "127.1", "017700000001", "localhost", "", "1.1.1.1 "],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_internet_addresses_are_public(address):
    """Addresses of the internet are public, up to the edges of the special ranges."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [pytest.param(each, id=f"{kind}: {each}") for kind in REFUSED for each in REFUSED[kind]],
)
def test_private_addresses_are_refused(address):
    """Addresses of private networks, and those that embed one, are refused."""
    assert not is_public(address)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.18.0.5", "198.18.0.0/15"),
        ("::ffff:198.18.0.5", "198.18.0.0/15"),
        ("64:ff9b::c612:5", "198.18.0.0/15"),
        ("64:ff9b::c612:5", "64:ff9b::/96"),
        ("64:ff9b:1::101:101", "64:ff9b:1::/48"),
        ("fd12:3456::1", "fd12:3456::/32"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_address_of_an_allowed_network_counts_as_public(address, network):
    """An allowed network lets in its own addresses, in any form, and no others."""
    allowed = [ip_network("192.0.2.0/24"), ip_network(network)]
    assert is_public(address, allowed)
    assert not is_public(address, allowed[:1])
    assert not is_public("172.16.0.1", allowed)


def test_address_with_a_zone_is_refused_in_an_allowed_network():
    """A zone names the outgoing interface, which a server must not choose."""
    allowed = [ip_network("fe80::/10")]
    assert is_public("fe80::1", allowed)
    assert not is_public("fe80::1%eth0", allowed)
    with pytest.raises(NotPublicError):
        public_socket(target(socket.AF_INET6, "fe80::1", 443, 0, 3), allowed)


def target(family, *where):
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where


@pytest.mark.parametrize(
    "there",
    [
        target(socket.AF_INET, "1.1.1.1", 443),
        target(socket.AF_INET6, "2606:4700::6810:84e5", 443, 0, 0),
        target(socket.AF_INET6, "64:ff9b::101:101", 443, 0, 0),
    ],
)
def test_a_socket_has_the_family_of_its_address(there):
    """The socket's family is that of the address."""
    with public_socket(there) as made:
        assert (made.family, made.type) == (there[0], socket.SOCK_STREAM)


@pytest.mark.parametrize(
    "there",
    [
        target(socket.AF_INET, "10.0.0.1", 443),
        target(socket.AF_INET6, "fe80::1", 443, 0, 0),
        target(socket.AF_INET6, "2606:4700::6810:84e5", 443, 0, 3),
        target(socket.AF_INET, b"10.0.0.1", 443),
    ],
)
def test_no_socket_is_created_for_a_refused_address(there):
    """No socket is created, not even for a public address with a zone."""
    with pytest.raises(NotPublicError):
        public_socket(there)
