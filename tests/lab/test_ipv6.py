"""A site without IPv4: found by link-local beacons, formed and served over IPv6."""

from __future__ import annotations

import subprocess
from ipaddress import ip_address

import pytest
import yaml

from simulations.lab import glance, network
from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab


def test_three_machines_without_ipv4_form_a_cluster_with_a_virtual_address(bench: Bench) -> None:
    built = bench.up(nodes=3, ipv6=True)
    bench.wait_until_complete(built)
    assert built.known.vip == built.places.vip == "fd10::50"
    ranges = set()
    for node in built.nodes():
        found = [ip_address(address) for address in network.addresses(node)]
        assert {address.version for address in found} == {6}
        config = node.disk / "etc-rancher/k3s/config.yaml.d/50-meshd.yaml"
        says = yaml.safe_load(config.read_text())
        assert says["node-ip"] == node.address
        ranges.add((says["cluster-cidr"], says["service-cidr"]))
    assert len(ranges) == 1
    assert all(part.startswith("fd") for part in ranges.pop())
    (holder,) = [one.name for one in glance.look(built) if one.has_vip]
    bench.wait_until("all to know its holder", lambda: all(
        one.status is not None and one.status["vip"] == {"address": "fd10::50", "holder": holder}
        for one in glance.look(built)
    ))  # fmt: skip
    for one in glance.look(built):
        assert one.status is not None
        assert one.status["health"] == []
        assert one.status["cluster"]["endpoint"] == "https://[fd10::50]:6443"
        assert {n["node_ip"] for n in one.status["nodes"]} == {n.address for n in built.nodes()}
    assert len(bench.clusters()) == 1

    # It survives a restart, which begins with nothing but a link-local address.
    built.kill("n2")
    bench.wait_until("the others to miss n2", lambda: all(
        "n2" not in one.sees for one in glance.look(built) if one.name != "n2"
    ))  # fmt: skip
    built.start("n2")
    bench.wait_until_complete(built)
    routes = ["ip", "-n", built.node("n2").namespace, "-4", "address", "show", "dev", "eth0"]
    assert subprocess.run(routes, check=True, capture_output=True, text=True).stdout == ""
    assert len(bench.clusters()) == 1
