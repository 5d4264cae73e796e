"""Own addresses: what other machines can reach, and nothing that moves or that containers made."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from meshd.mesh.interfaces import (
    Interface,
    own_addresses,
    read_interfaces,
    split_messages,
    usable_interfaces,
)
from meshd.mesh.whereabouts import listen_addresses


def interface(name: str, *, loopback: bool = False) -> Interface:
    return Interface(
        index=1, name=name, loopback=loopback, multicast=True, addresses=(ip_address("10.0.0.1"),)
    )


def test_the_kernel_tells_of_loopback() -> None:
    (found,) = [each for each in read_interfaces() if each.loopback]
    assert found.name == "lo"
    assert ip_address("127.0.0.1") in found.addresses


@pytest.mark.parametrize("name", ["eth0", "enp3s0", "wlan0", "bond0", "br0", "wg0", "vlan10"])
def test_interfaces_that_lead_to_other_machines_are_used(name: str) -> None:
    assert usable_interfaces([interface(name)], only=None)


@pytest.mark.parametrize(
    "name",
    ["docker0", "br-0123456789ab", "cni0", "flannel.1", "veth12ab", "cali1", "meshd0", "virbr0"],
)
def test_interfaces_of_containers_and_of_the_overlay_are_not(name: str) -> None:
    assert not usable_interfaces([interface(name)], only=None)


def test_a_named_interface_is_the_only_one() -> None:
    both = [interface("eth0"), interface("docker0"), interface("lo", loopback=True)]
    assert [each.name for each in usable_interfaces(both, only="docker0")] == ["docker0"]


def test_a_virtual_address_beside_a_real_one_is_nobodys_own() -> None:
    real, virtual = ip_address("10.0.0.11"), ip_address("10.0.0.50")
    assert own_addresses([(real, 24), (virtual, 32)]) == (real,)
    assert own_addresses([(virtual, 32)]) == (virtual,)  # A host route may be all there is.


def test_a_wildcard_stands_for_the_reachable_addresses_of_its_family() -> None:
    reachable = [ip_address("10.0.0.11"), ip_address("2001:db8::1")]
    assert listen_addresses([("0.0.0.0", 7946), ("::", 7947)], reachable) == [  # noqa: S104
        "/ip4/10.0.0.11/tcp/7946",
        "/ip6/2001:db8::1/tcp/7947",
    ]
    assert listen_addresses([("127.0.0.1", 1)], reachable) == ["/ip4/127.0.0.1/tcp/1"]
    assert listen_addresses([("0.0.0.0", 1)], []) == []  # noqa: S104


def test_truncated_netlink_messages_end_quietly() -> None:
    assert list(split_messages(b"\x03\x00\x00\x00" + bytes(20))) == []
    assert list(split_messages(b"short")) == []
