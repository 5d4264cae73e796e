"""Machines with two network cards, taken ports, pulled cables and addresses that change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulations.lab import glance, network
from simulations.lab.laboratory import Laboratory
from simulations.lab.places import NodePlaces
from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab

TAKE_PORT = """
import socket, sys
sock = socket.create_server(("0.0.0.0", 6443))
print("taken", flush=True)
sys.stdin.read()
"""


@contextmanager
def port_taken(node: NodePlaces) -> Iterator[int]:
    """Have a program listen on k3s' port of a node; gives its process id."""
    command = ["ip", "netns", "exec", node.namespace, sys.executable, "-c", TAKE_PORT]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "taken\n"
        yield program.pid
        program.communicate()


def name_of(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()


def statuses(built: Laboratory) -> dict[str, dict[str, Any]]:
    return {one.name: one.status for one in glance.look(built) if one.status is not None}


def message(built: Laboratory, name: str, code: str) -> str:
    """Return what a node's health item of that code says, or nothing."""
    items = statuses(built).get(name, {}).get("health", [])
    return next((str(item["message"]) for item in items if item["code"] == code), "")


def lose_and_regain_its_address(bench: Bench, built: Laboratory, node: NodePlaces) -> None:
    """k3s keeps to the address that it started with; the machine says that it has lost it."""
    network.change_address(node, "del", f"{node.address}/24")
    network.change_address(node, "add", "10.0.0.77/24")
    bench.wait_until("it to be said", lambda: "10.0.0.77" in message(built, node.name, "MESH-3112"))
    assert f"knows this machine at {node.address}" in message(built, node.name, "MESH-3112")
    network.change_address(node, "del", "10.0.0.77/24")
    network.change_address(node, "add", f"{node.address}/24")
    bench.wait_until_complete(built)
    bench.wait_until(
        "no complaint to be left", lambda: not any(s["health"] for s in statuses(built).values())
    )


@pytest.mark.lab_long
def test_taken_ports_a_late_card_pulled_cables_and_a_moved_address(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = bench.up(nodes=3, boots=False)
    n1, n2, n3 = built.nodes()
    for node in (n1, n2, n3):
        network.add_card(node, "eth1", f"192.168.7.{node.number}/24")
    built.start("n1")
    with port_taken(n1) as program:
        with monkeypatch.context() as patch:
            patch.setattr(network, "power_on", lambda _: None)
            built.start("n2")  # Its eth0 comes later.
        built.start("n3")

        def said() -> str:
            return str(statuses(built).get("n3", {}).get("node", {}).get("waiting_for"))

        bench.wait_until("n3 to say what is missing", lambda: "n1: " in said() and "n2: " in said())
        found, *others = said().split("; ")
        assert found == "1 of 3 servers found (n3)"
        assert sorted(others) == [
            f"n1: k3s' port on it is taken: 6443 by process {program} ({name_of(program)})",
            "n2: none of its subnets (192.168.7.0/24) holds the virtual address 10.0.0.50",
        ]
        bench.wait_until(
            "n1 to say it too", lambda: str(program) in message(built, "n1", "MESH-3110")
        )
        assert "no seat" in message(built, "n2", "MESH-3113")
        assert bench.clusters() == ()
        # Two cards are one machine: nobody is there twice.
        for status in statuses(built).values():
            assert sorted(node["name"] for node in status["nodes"]) == ["n1", "n2", "n3"]

    # The program ends and DHCP answers: all goes on by itself, on the card of the VIP.
    network.power_on(n2)
    bench.wait_until_complete(built)
    bench.wait_until(
        "no complaint to be left", lambda: not any(s["health"] for s in statuses(built).values())
    )
    for status in statuses(built).values():
        assert {node["name"]: node["node_ip"] for node in status["nodes"]} == {
            node.name: node.address for node in (n1, n2, n3)
        }

    # One cable of two: k3s cannot be reached, but the mesh has the other card.
    # Both: not heard, until they are back.
    def n3_seen_from(name: str, what: str) -> str:
        nodes = statuses(built)[name]["nodes"]
        return next(str(node[what]) for node in nodes if node["name"] == "n3")

    network.unplug(n3)
    bench.wait_until("k3s to suffer", lambda: n3_seen_from("n1", "k3s") != "ready")
    bench.wait_until("the mesh not to", lambda: n3_seen_from("n1", "state") == "alive")
    network.unplug(n3, "eth1")
    bench.wait_until("n1 to miss n3", lambda: n3_seen_from("n1", "state") == "failed")
    bench.wait_until("n1 to say so", lambda: "n3" in message(built, "n1", "MESH-3305"))
    for card in ("eth0", "eth1"):
        network.plug(n3, card)
    bench.wait_until_complete(built)

    lose_and_regain_its_address(bench, built, n2)
    assert len(bench.clusters()) == 1


def test_a_late_card_and_a_virtual_address_that_is_taken_hold_a_cluster_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = bench.up(nodes=2, control_plane=1, boots=False)
    n1, n2 = built.nodes()
    with monkeypatch.context() as patch:
        patch.setattr(network, "power_on", lambda _: None)
        built.start("n1")
    bench.wait_until("n1 to say it", lambda: bool(message(built, "n1", "MESH-3111")))
    assert "no interface has an address" in message(built, "n1", "MESH-3111")
    own = statuses(built)["n1"]["node"]
    assert own["waiting_for"] == "this machine to get a network address"
    # DHCP gives one address and then, before k3s was ever started, another: it is followed.
    network.power_on(n1)
    bench.wait_until("n1 to have it", lambda: address_seen_from(built, "n1", "n1") == n1.address)
    network.change_address(n1, "del", f"{n1.address}/24")
    network.change_address(n1, "add", "10.0.0.77/24")
    bench.wait_until("n1 to follow", lambda: address_seen_from(built, "n1", "n1") == "10.0.0.77")
    assert message(built, "n1", "MESH-3112") == ""
    # Somebody else has the virtual address: no cluster begins with it.
    stranger = ["ip", "-n", built.places.lan, "address"]
    vip = [f"{built.places.vip}/24", "dev", network.bridge(0)]
    subprocess.run([*stranger, "add", *vip], check=True)
    bench.wait_until("n1 to say it", lambda: bool(message(built, "n1", "MESH-3114")))
    built.start("n2")
    bench.wait_until("both to say it", lambda: all(
        "10.0.0.50 is taken" in message(built, name, "MESH-3114") for name in ("n1", "n2")
    ))  # fmt: skip
    assert bench.clusters() == ()
    subprocess.run([*stranger, "del", *vip], check=True)
    bench.wait_until("both to form", lambda: all(
        status["cluster"]["nodes_ready"] == 2 and not status["health"]
        for status in statuses(built).values()
    ))  # fmt: skip
    assert {address_seen_from(built, "n2", name) for name in ("n1", "n2")} == {
        "10.0.0.77",
        n2.address,
    }


def address_seen_from(built: Laboratory, name: str, whose: str) -> str | None:
    """Return the node address of one node as another one's status has it."""
    nodes = statuses(built).get(name, {}).get("nodes", [])
    return next((node["node_ip"] for node in nodes if node["name"] == whose), None)


def test_servers_that_call_their_cards_differently_each_serve_the_virtual_address(
    bench: Bench,
) -> None:
    built = bench.up(nodes=3, boots=False)
    n1, n2, n3 = built.nodes()
    for node, card in ((n1, "eth0"), (n2, "ens18"), (n3, "eth9")):
        if card != node.card:
            network.name_card(node, card)
        built.start(node.name)
    bench.wait_until_complete(built)
    # One DaemonSet would name one interface for all; each has a static pod with its own instead.
    for node in (n1, n2, n3):
        assert not list(node.k3s_folder.glob("server/manifests/meshd-kube-vip.yaml"))
        pod = yaml.safe_load(
            (node.k3s_folder / "agent/pod-manifests/meshd-kube-vip.yaml").read_text()
        )
        (container,) = pod["spec"]["containers"]
        assert {"name": "vip_interface", "value": node.card} in container["env"]
    # It moves to another one when its holder is gone, whatever the card is called there.
    (holder,) = [one.name for one in glance.look(built) if one.has_vip]
    built.kill(holder)
    bench.wait_until("another to hold it", lambda: any(
        one.has_vip for one in glance.look(built) if one.name != holder
    ))  # fmt: skip
    built.start(holder)
    bench.wait_until_complete(built)
    assert len(bench.clusters()) == 1
