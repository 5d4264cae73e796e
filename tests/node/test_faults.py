"""Machines and files that are not as they should be, in whole networks: who is named, and how."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import msgspec

from ledger import decode_entry
from meshd.events import FactsObserved
from meshd.node import Node
from meshd.status import build_status
from roles import Bounds
from simulations.model.machine import NETWORK_ID
from simulations.model.runs import MESHD
from simulations.model.scenario import calm
from simulations.model.world import World

THREE = Bounds.bounded(control_plane=3, nodes_max=3)
FIVE = Bounds.bounded(control_plane=3, nodes_max=5)
PATIENCE_S = 200.0


def network(bounds: Bounds = THREE, **changes: Mapping[str, object]) -> World:
    """Return a calm network after `PATIENCE_S`; `changes` are to the facts of machines, by name."""
    world = World(calm(bounds, bounds.nodes_max), MESHD)
    world.faulty = False
    for machine in world.machines:
        change = {"memory_mib": 4096, **changes.get(machine.facts.name, {})}
        machine.facts = msgspec.structs.replace(machine.facts, **change)
    world.timeline.run_until(PATIENCE_S)
    return world


def node_of(world: World, number: int) -> Node:
    """Return node n`number`."""
    peer = world.machines[number - 1].peer
    assert isinstance(peer, Node)
    return peer


def health_of(node: Node) -> dict[str, str]:
    return {item.code: item.message for item in node.health}


def seats(world: World) -> list[int]:
    """Return the numbers of the nodes with a seat."""
    plan = node_of(world, 1).standing.plan
    assert plan is not None
    return [m.spec.index + 1 for m in world.machines if plan.seat_of(m.node) is not None]


def test_too_little_memory_for_a_server_is_named_by_all_who_wait_for_one() -> None:
    world = network(n2={"memory_mib": 1024})
    for number in (1, 2, 3):
        found, _, why = str(node_of(world, number).waiting_for).partition("; ")
        assert found in ("2 of 3 servers found (n1, n3)", "2 of 3 servers found (n3, n1)")
        assert why == "n2: it has 1024 MiB of memory, a server needs 1843"


def test_a_small_machine_works_where_others_serve_and_serves_where_it_is_told_to() -> None:
    beside_four = network(FIVE, n2={"memory_mib": 1024})
    assert 2 not in seats(beside_four)
    assert node_of(beside_four, 2).phase == "steady"
    told = network(n2={"memory_mib": 1024, "role_wish": "control-plane"})
    assert seats(told) == [1, 2, 3]


def test_other_settings_of_k3s_are_named_by_key_and_the_machine_becomes_a_worker() -> None:
    odd = {"settings_hash": "77" * 32, "settings": (("cluster-cidr", "10.44.0.0/16"),)}
    world = network(n2=odd)
    text = "cluster-cidr (10.44.0.0/16, not the default)"
    assert health_of(node_of(world, 2))["MESH-4003"] == (
        f"this node's settings differ from those of n1, n3: {text}"
    )
    assert node_of(world, 2).phase == "halted"
    assert health_of(node_of(world, 1))["MESH-3306"] == (
        f"n2 is not counted as a voter: its settings differ from those most have: {text}"
    )
    five = network(FIVE, n2=odd)
    assert 2 not in seats(five)
    assert node_of(five, 2).phase == "steady"


def test_a_worker_among_too_few_voters_is_named_by_those_who_wait() -> None:
    world = network(n2={"role_wish": "worker"})
    assert node_of(world, 1).waiting_for == (
        "2 of 3 voters seen (n1, n3): one more machine with this token must be reachable (n2 does "
        "not vote: its role is worker)"
    )


def test_machines_of_one_hostname_are_told_apart() -> None:
    world = network(THREE, **{f"n{number}": {"name": "localhost"} for number in (1, 2, 3)})
    names = [machine.facts.node_name for machine in world.machines]
    for number in (1, 2, 3):
        status = build_status(
            node_of(world, number), world.machines[0].moment(PATIENCE_S), uptime_s=1.0
        )
        assert status.node.name == names[number - 1]
        assert [node.name for node in status.nodes] == sorted(names)
    assert node_of(world, 1).phase == "steady"


def test_a_file_changed_after_the_cluster_formed_changes_no_decision_and_is_named() -> None:
    world = network()
    machine = world.machines[0]
    before = node_of(world, 1)
    bounds = Bounds.bounded(control_plane=5)
    facts = msgspec.structs.replace(
        machine.facts,
        nodes_max=bounds.nodes_max,
        quorum=bounds.quorum,
        control_plane=bounds.control_plane,
        vip="10.0.0.99",
    )
    entries, votes = machine.disk.load()
    now = machine.moment(PATIENCE_S + 1)
    again = Node(
        network_id=NETWORK_ID,
        signer=machine.signer,
        bounds=bounds,
        facts=facts,
        vip="10.0.0.99",
        rng=Random(1),
        now=now,
        entries=tuple(decode_entry(entry, NETWORK_ID) for entry in entries),
        votes=votes,
    )
    again.handle(FactsObserved(facts), now)
    assert again.genesis.state.phase == "formed"
    assert (again.seat, again.standing.plan) == (before.seat, before.standing.plan)
    assert again.order.plan == before.order.plan
    assert health_of(again)["MESH-3313"] == (
        "this node is set up otherwise than the cluster was formed: a control plane of 5, formed "
        "with 3; kubevip.eip 10.0.0.99, formed with 10.0.0.250"
    )
    assert "MESH-3313" not in health_of(before)
