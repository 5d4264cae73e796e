"""`meshd status -o json` of nodes that really formed, word for word as the contract has it."""

from __future__ import annotations

import re
from functools import cache

import msgspec
import pytest

from ledger import Instant, Moment
from meshd.node import Node
from meshd.status import Status, build_status, ledger_rows
from roles import Bounds
from simulations.model.machine import EPOCH_MS
from simulations.model.runs import MESHD
from simulations.model.scenario import calm
from simulations.model.world import World

KEYS = {
    "": "api_version kind network node genesis cluster vip nodes ledger health",
    "network": "id bound nodes_max quorum control_plane",
    "node": "id name role initialiser phase waiting_for uptime_s",
    "genesis": "phase generation cluster_id initialiser votes",
    "cluster": "endpoint servers control_plane_ready nodes_ready k3s_version",
    "vip": "address holder",
    "ledger": "entries root rejected",
}
NODE_KEYS = "id name role state path relay rtt_ms node_ip k3s waiting_for"


@cache
def world_after(seconds: float, machines: int = 5) -> World:
    """Return a calm network of so many machines, of which five may vote, after so long."""
    scenario = calm(Bounds.bounded(control_plane=3, nodes_max=5), machines)
    world = World(scenario, MESHD)
    world.faulty = False
    world.timeline.run_until(seconds)
    return world


def node_in(world: World, index: int) -> Node:
    peer = world.machines[index].peer
    assert isinstance(peer, Node)
    return peer


def status_in(world: World, index: int) -> Status:
    now = world.machines[index].moment(world.timeline.now)
    return build_status(node_in(world, index), now, uptime_s=world.timeline.now)


def seats(world: World) -> tuple[list[int], list[int]]:
    """Return the indexes of machines with a seat and of those without."""
    plan = node_in(world, 0).standing.plan
    assert plan is not None
    seated = [i for i, machine in enumerate(world.machines) if plan.seat_of(machine.node)]
    return seated, [i for i in range(len(world.machines)) if i not in seated]


def test_the_json_has_the_names_of_the_contract_and_nulls_where_nothing_is_known() -> None:
    for world in (world_after(0.5, machines=1), world_after(120.0)):
        found = msgspec.json.decode(msgspec.json.encode(status_in(world, 0)))
        for part, names in KEYS.items():
            assert set(names.split()) <= set(found[part] if part else found), part
        for node in found["nodes"]:
            assert set(NODE_KEYS.split()) <= set(node)
        assert (found["api_version"], found["kind"]) == ("meshd/v1", "Status")


def test_a_machine_alone_says_how_many_are_missing() -> None:
    status = status_in(world_after(20.0, machines=1), 0)
    assert status.genesis.phase == "discovering"
    assert status.node.phase == "discovering"
    assert status.node.role is None
    assert status.node.waiting_for is not None
    assert "1 of 3 voters seen (n1)" in status.node.waiting_for
    assert status.cluster.endpoint is None
    assert [(node.name, node.path, node.state) for node in status.nodes] == [
        ("n1", "self", "alive")
    ]


def test_a_formed_network_shows_who_does_what_on_every_node() -> None:
    world = world_after(120.0)
    seated, workers = seats(world)
    assert (len(seated), len(workers)) == (3, 2)
    names = [machine.facts.name for machine in world.machines]
    for index in range(5):
        status = status_in(world, index)
        assert status.node.phase == "steady"
        assert status.node.waiting_for is None
        assert status.node.role == ("control-plane" if index in seated else "worker")
        assert status.genesis.phase == "formed"
        assert status.genesis.votes >= 3
        assert status.cluster.control_plane_ready == 3
        assert status.cluster.nodes_ready == 5
        assert sorted(status.cluster.servers) == sorted(f"10.0.0.{i + 1}" for i in seated)
        assert status.cluster.k3s_version == "v1.34.1+model"
        assert {node.name: node.role for node in status.nodes} == {
            names[i]: "control-plane" if i in seated else "worker" for i in range(5)
        }
        assert {node.k3s for node in status.nodes} == {"ready"}
        assert all(node.rtt_ms is not None for node in status.nodes if node.path == "direct")
        assert status.health == ()
    assert len({status_in(world, index).ledger.root for index in range(5)}) == 1
    assert sum(status_in(world, index).node.initialiser for index in range(5)) == 1


def test_a_machine_with_a_join_token_becomes_a_worker() -> None:
    world = world_after(150.0, machines=6)
    assert status_in(world, 5).node.role == "worker"
    assert status_in(world, 5).node.phase == "steady"


def test_between_start_and_done_everyone_says_what_it_waits_for() -> None:
    world = world_after(10.0)
    phases = {status_in(world, index).genesis.phase for index in range(5)}
    assert phases == {"started"}
    for index in range(5):
        status = status_in(world, index)
        assert status.node.phase == "joining"
        assert status.node.waiting_for
        assert all(node.waiting_for for node in status.nodes)


def test_a_machine_that_is_gone_is_shown_as_failed() -> None:
    world = world_after.__wrapped__(120.0)
    _, (worker, _) = seats(world)
    world.crash(world.machines[worker], power_cut=True, down_s=1000.0)
    world.timeline.run_until(world.timeline.now + 30.0)
    other = (worker + 1) % 5
    gone = next(
        node
        for node in status_in(world, other).nodes
        if node.name == world.machines[worker].facts.name
    )
    assert (gone.state, gone.path, gone.rtt_ms) == ("failed", None, None)


def test_ledger_rows_can_be_chosen_by_author_and_key_and_show_no_secret() -> None:
    world = world_after(120.0)
    node = node_in(world, 0)
    now = world.machines[0].moment(world.timeline.now)
    rows = ledger_rows(node, now)
    assert len(rows) == len(node.replica.entries)
    assert [row.key for row in rows] == sorted(row.key for row in rows)
    assert {row.name for row in ledger_rows(node, now, author="n2")} == {"n2"}
    assert {row.name for row in ledger_rows(node, now, author=world.machines[1].node)} == {"n2"}
    assert {row.key for row in ledger_rows(node, now, prefix="genesis/")} == {
        "genesis/1/claim",
        "genesis/1/started",
        "genesis/1/done",
    }
    facts = next(row for row in rows if row.key == f"node/{node.me}/facts")
    assert isinstance(facts.value, dict)
    assert facts.value["name"] == "n1"
    assert facts.age_s is not None
    assert 100 < facts.age_s < 130
    sealed = [row for row in rows if row.key.startswith("sealed/")]
    assert len(sealed) == 6  # Two secrets for each of two servers, one for each of two workers.
    assert all(re.fullmatch(r"[0-9a-f]+…?", str(row.value)) for row in sealed)


def test_the_age_of_an_entry_from_the_future_is_unknown() -> None:
    world = world_after(120.0)
    long_ago = Moment(at=Instant(200.0), wall_ms=EPOCH_MS - 1)
    rows = ledger_rows(node_in(world, 0), long_ago)
    assert {row.age_s for row in rows} == {None}


@pytest.mark.parametrize("author", ["n9", "12D3KooWnobody"])
def test_an_unknown_author_has_no_rows(author: str) -> None:
    world = world_after(120.0)
    now = world.machines[0].moment(world.timeline.now)
    assert ledger_rows(node_in(world, 0), now, author=author) == ()
