"""Which address a node takes for k3s."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from meshd.machine import Interface, choose_node_ip, default_route_interface

LAN = Interface(name="eth0", addresses=(ip_interface("10.0.0.11/24"), ip_interface("fd00::11/64")))
STORAGE = Interface(name="eth1", addresses=(ip_interface("192.168.7.1/24"),))


@pytest.mark.parametrize(
    ("wanted", "vip", "default_route", "expected"),
    [
        (None, None, None, "10.0.0.11"),
        (None, None, "eth1", "192.168.7.1"),
        (None, "10.0.0.50", "eth1", "10.0.0.11"),
        (None, "fd00::50", "eth1", "fd00::11"),
        ("eth1", "10.0.0.50", "eth0", "192.168.7.1"),
        ("eth9", None, "eth0", None),
    ],
)
def test_the_named_interface_then_the_vips_subnet_then_the_default_route(
    wanted: str | None, vip: str | None, default_route: str | None, expected: str | None
) -> None:
    chosen = choose_node_ip([LAN, STORAGE], wanted=wanted, vip=vip, default_route=default_route)
    assert chosen == expected


def test_the_vip_itself_is_never_the_node_address() -> None:
    holder = Interface(
        name="eth0", addresses=(ip_interface("10.0.0.50/32"), ip_interface("10.0.0.11/24"))
    )
    assert choose_node_ip([holder], wanted=None, vip="10.0.0.50", default_route=None) == "10.0.0.11"


def test_an_ipv6_only_machine_has_a_node_address() -> None:
    only = Interface(name="eth0", addresses=(ip_interface("fd00::11/64"),))
    assert choose_node_ip([only], wanted=None, vip=None, default_route=None) == "fd00::11"


def test_the_default_route_with_the_lowest_metric_counts() -> None:
    routes = (
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth1\t00000000\t0100000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "eth2\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert default_route_interface(routes) == "eth0"
    assert default_route_interface(routes.splitlines()[0]) is None
