"""Which address a node takes for k3s."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from meshd.machine import (
    Interface,
    NodeAddress,
    address_problem,
    choose_node_address,
    default_route_interface,
    default_route_interface_v6,
)

LAN = Interface(name="eth0", addresses=(ip_interface("10.0.0.11/24"), ip_interface("fd00::11/64")))
STORAGE = Interface(name="eth1", addresses=(ip_interface("192.168.7.1/24"),))


@pytest.mark.parametrize(
    ("wanted", "vip", "default_route", "expected"),
    [
        (None, None, None, ("eth0", "10.0.0.11")),
        (None, None, "eth1", ("eth1", "192.168.7.1")),
        (None, "192.168.7.50", None, ("eth1", "192.168.7.1")),
        (None, "10.0.0.50", "eth1", ("eth0", "10.0.0.11")),
        (None, "fd00::50", "eth1", ("eth0", "fd00::11")),
        ("eth1", "10.0.0.50", "eth0", ("eth1", "192.168.7.1")),
        ("eth9", None, "eth0", None),
    ],
)
def test_the_named_interface_then_the_vips_subnet_then_the_default_route(
    wanted: str | None,
    vip: str | None,
    default_route: str | None,
    expected: tuple[str, str] | None,
) -> None:
    chosen = choose_node_address(
        [LAN, STORAGE], wanted=wanted, vip=vip, default_route=default_route
    )
    assert chosen == (expected and NodeAddress(interface=expected[0], ip=expected[1]))


def test_the_vip_itself_is_never_the_node_address() -> None:
    holder = Interface(
        name="eth0", addresses=(ip_interface("10.0.0.50/32"), ip_interface("10.0.0.11/24"))
    )
    chosen = choose_node_address([holder], wanted=None, vip="10.0.0.50", default_route=None)
    assert chosen == NodeAddress(interface="eth0", ip="10.0.0.11")


def test_an_ipv6_only_machine_has_a_node_address() -> None:
    only = Interface(name="eth0", addresses=(ip_interface("fd00::11/64"),))
    chosen = choose_node_address([only], wanted=None, vip=None, default_route=None)
    assert chosen == NodeAddress(interface="eth0", ip="fd00::11")


def test_the_default_route_with_the_lowest_metric_counts() -> None:
    routes = (
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth1\t00000000\t0100000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "eth2\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert default_route_interface(routes) == "eth0"
    assert default_route_interface(routes.splitlines()[0]) is None


V6_ROUTES = (
    "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 "
    "00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth1\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "fd0000000000000000000000000000fe 00000400 00000001 00000000 00000003 eth1\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "fd0000000000000000000000000000ff 00000200 00000001 00000000 00000003 eth0\n"
    "00000000000000000000000000000000 00 00000000000000000000000000000000 00 "
    "00000000000000000000000000000000 ffffffff 00000001 00000000 00200200 lo\n"
)


def test_an_ipv6_default_route_counts_where_there_is_no_other() -> None:
    assert default_route_interface_v6(V6_ROUTES) == "eth0"
    assert default_route_interface_v6(V6_ROUTES.splitlines()[0]) is None
    assert default_route_interface_v6("") is None


def problem(
    *interfaces: Interface, wanted: str | None = None, vip: str | None = None
) -> str | None:
    names = ["eth0", "eth1", *(interface.name for interface in interfaces)]
    return address_problem(interfaces, sorted(set(names)), wanted=wanted, vip=vip)


def test_a_machine_without_an_address_says_which_interfaces_there_are() -> None:
    assert problem(LAN) is None
    assert problem() == "no interface has an address (there are: eth0, eth1)"
    assert problem(LAN, wanted="eth9") == (
        "there is no interface eth9 (p2p.meshd.interface; there are: eth0, eth1)"
    )
    assert problem(LAN, wanted="eth1") == (
        "its interface eth1 (p2p.meshd.interface) has no address"
    )


def test_a_card_outside_of_the_vips_subnet_does_only_if_it_was_named() -> None:
    assert problem(LAN, STORAGE, vip="10.0.0.50") is None
    assert problem(STORAGE, vip="10.0.0.50") == (
        "none of its subnets (192.168.7.0/24) holds the virtual address 10.0.0.50"
    )
    assert problem(STORAGE, wanted="eth1", vip="10.0.0.50") is None
    holder = Interface(name="eth0", addresses=(ip_interface("10.0.0.50/32"),))
    assert problem(STORAGE, holder, vip="10.0.0.50") is not None


def test_an_ipv6_address_without_a_prefix_is_not_held_against_a_machine() -> None:
    by_dhcp = Interface(name="eth0", addresses=(ip_interface("fd00::11/128"),))
    assert problem(by_dhcp, vip="fd00::50") is None
