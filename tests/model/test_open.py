"""Open networks in simulated time: they form, and a split is seen by everybody in it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from meshd.events import K3sObserved
from meshd.explain import Given, explain
from meshd.node import Node
from meshd.status import build_status
from roles import Bounds, GenesisState
from roles._standpoint import Standpoint
from simulations.model.open import Onlooker, begin, flaws, report, run_open_seed
from simulations.model.runs import exchanged
from simulations.model.scenario import calm
from simulations.model.world import World
from tests.model.broken import AGAIN_AFTER_DONE

SEEDS = range(4)


def test_open_networks_form_and_whatever_splits_is_shown() -> None:
    results = [run_open_seed(seed) for seed in SEEDS]
    assert [result.flaw for result in results] == [None] * len(SEEDS)
    assert sum(result.outcome == "one cluster" for result in results) > len(SEEDS) / 2
    assert any(result.theirs_doubled for result in results)  # The faults are such that it matters.
    assert f"{len(SEEDS)} open networks" in report(results)


@cache
def healed() -> tuple[World, dict[str, list[Node]]]:
    """Return a network whose halves formed by themselves and met; the nodes of each cluster."""
    world, onlooker = begin(calm(Bounds.unbounded(control_plane=1), 4))
    world.faulty = False
    world.network.separate([0, 1])
    world.links_changed()
    world.timeline.run_until(90.0)
    assert onlooker.doubled
    world.network.mend()
    world.links_changed()
    world.timeline.run_until(150.0)
    clusters: dict[str, list[Node]] = {}
    for machine in world.machines:
        assert isinstance(machine.peer, Node)
        plan = machine.peer.standing.plan
        assert plan is not None
        clusters.setdefault(plan.cluster_id, []).append(machine.peer)
    return world, clusters


def test_halves_that_formed_by_themselves_keep_what_they_have_and_name_both() -> None:
    _, clusters = healed()
    assert sorted(len(nodes) for nodes in clusters.values()) == [2, 2]
    for own, nodes in clusters.items():
        (other,) = clusters.keys() - {own}
        for node in nodes:
            assert node.standing.formed
            alarms = [item for item in node.health if item.code == "MESH-4007"]
            assert len(alarms) == 1  # One for each other cluster, not for each slot.
            assert f"ours is {own[:8]}" in alarms[0].message
            assert f"the other {other[:8]}" in alarms[0].message
            told = explain(node, Given(), "genesis", None)
            assert any("MESH-4007" in cause.text for cause in told.causes)
            assert node.order.plan is not None
            assert node.order.plan.cluster_id == own
            assert not node.order.stop


def test_the_table_of_nodes_shows_the_other_clusters_servers_as_what_they_are() -> None:
    world, clusters = healed()
    machine = world.machines[0]
    node = machine.peer
    assert isinstance(node, Node)
    status = build_status(node, machine.moment(world.timeline.now), uptime_s=150.0)
    assert (status.network.bound, status.network.nodes_max, status.network.quorum) == (
        "open", None, 3,
    )  # fmt: skip
    first = {nodes[0].standing.plan.initialiser for nodes in clusters.values()}  # type: ignore[union-attr]
    servers = {one.id for one in status.nodes if one.role == "control-plane"}
    assert servers == first


def test_both_holders_of_the_virtual_address_are_named() -> None:
    world, clusters = healed()
    holders = []
    for nodes in clusters.values():
        plan = nodes[0].standing.plan
        assert plan is not None
        holders.append(plan.seats[0].node_name)
        machine = next(m for m in world.machines if m.node == plan.initialiser)
        assert isinstance(machine.peer, Node)
        assert machine.peer.observed is not None
        seen = K3sObserved(
            state="ready",
            cluster_id=plan.cluster_id,
            voters=machine.peer.observed.voters,
            kube_system_uid=machine.peer.observed.kube_system_uid,
            vip_holder=plan.seats[0].node_name,
        )
        world.handle(machine, seen)
    world.timeline.run_until(world.timeline.now + 2.0)
    for nodes in clusters.values():
        for node in nodes:
            (alarm,) = [item for item in node.health if item.code == "MESH-4030"]
            for cluster, holder in zip(clusters, holders, strict=True):
                assert f"{holder} in cluster {cluster[:8]}" in alarm.message
            told = explain(node, Given(), "vip", None)
            assert any("MESH-4030" in cause.text for cause in told.causes)


def test_a_network_in_which_nobody_formed_is_a_flaw() -> None:
    world, _ = begin(calm(Bounds.unbounded(control_plane=1), 2))
    world.timeline.run_until(5.0)
    (flaw,) = flaws(world)
    assert flaw.startswith("no cluster formed: ")


def states_of(world: World) -> list[GenesisState]:
    return [m.peer.genesis.state for m in world.machines if isinstance(m.peer, Node)]


def met_unformed(*, fuse: bool) -> tuple[World, Onlooker]:
    """Return a network whose halves each started a plan, and met before k3s was up."""
    scenario = replace(calm(Bounds.unbounded(control_plane=1), 4), k3s_slowness=8.0)
    machines = tuple(replace(machine, fuse=fuse) for machine in scenario.machines)
    world, onlooker = begin(replace(scenario, machines=machines))
    world.faulty = False
    world.network.separate([0, 1])
    world.links_changed()
    while sum(state.started for state in states_of(world)) < 4:
        world.timeline.run_until(world.timeline.now + 0.5)
    assert len({state.plan for state in states_of(world)}) == 2
    assert not any(state.formed for state in states_of(world))
    world.network.mend()
    world.links_changed()
    world.timeline.run_until(900.0)
    return world, onlooker


def test_halves_that_meet_before_either_formed_become_one_cluster() -> None:
    world, onlooker = met_unformed(fuse=True)
    nodes = [machine.peer for machine in world.machines if isinstance(machine.peer, Node)]
    assert [node.genesis.state.formed for node in nodes] == [True] * 4
    assert {node.genesis.state.generation for node in nodes} == {2}
    assert len({node.order.plan.cluster_id for node in nodes if node.order.plan}) == 1
    assert list(flaws(world)) == []
    assert not onlooker.beside


def test_halves_without_leases_wait_and_say_so_which_is_known() -> None:
    world, _ = met_unformed(fuse=False)
    assert not any(state.formed for state in states_of(world))
    assert {state.generation for state in states_of(world)} == {1}
    assert list(flaws(world)) == []
    for state in states_of(world):
        (alarm,) = state.problems
        assert alarm.code == "MESH-4007"
        assert "give those a new token" in alarm.fix


def test_a_node_that_leaves_the_cluster_whose_done_it_holds_is_a_flaw() -> None:
    world, onlooker = begin(calm(Bounds.unbounded(control_plane=1), 3))
    with exchanged([AGAIN_AFTER_DONE]):
        world.timeline.run_until(120.0)
    assert "n1 holds DONE of 1, and takes claim of generation 2" in onlooker.unfaithful


def unfaithful(*broken: tuple[object, str, object]) -> list[str]:
    """Return what is taken note of while four machines form."""
    world, onlooker = begin(calm(Bounds.unbounded(control_plane=1), 4))
    with exchanged(broken):
        world.timeline.run_until(60.0)
    return onlooker.unfaithful


def test_a_quorum_that_is_told_and_not_kept_is_a_flaw() -> None:
    assert unfaithful() == []
    found = unfaithful((Standpoint, "keep_quorum", lambda _self: []))
    assert "n1 tells of a quorum of 3, and its disk of 2" in found


def test_a_cluster_is_whole_only_if_every_machine_is_in_it() -> None:
    world, _ = begin(calm(Bounds.unbounded(control_plane=1), 4))
    world.timeline.run_until(200.0)
    assert list(flaws(world)) == []
    world.machines[2].k3s.kill(power_cut=True)
    assert list(flaws(world)) == ["k3s on n3 is not ready"]
    world.crash(world.machines[3], power_cut=False, down_s=10.0)
    assert "n4 is down" in list(flaws(world))
