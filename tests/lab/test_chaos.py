"""Cycles of `make lab-chaos`: faults while real daemons form a cluster with a real etcd."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from meshd.holder.processes import record_of, write_json
from simulations.lab import chaos
from simulations.lab.chaos_plan import MOMENTS, Fault, Plan, draw
from simulations.lab.places import NodePlaces, Places
from simulations.lab.progress import Checklist
from simulations.lab.witness import Witness
from tests.lab.conftest import STANDIN, Bench

pytestmark = pytest.mark.lab


def check(bench: Bench, plan: Plan) -> chaos.Outcome:
    """Run one plan; nothing of it may be wrong."""
    said = io.StringIO()
    outcome = chaos.cycle(bench.places, plan, STANDIN, Checklist(out=said))
    assert outcome.complaints == [], f"{plan}\n{said.getvalue()}"
    assert outcome.looks > 0
    return outcome


@pytest.mark.lab_long
@pytest.mark.parametrize("seed", [1, 2, 4])
def test_a_cycle_of_random_faults_ends_in_one_cluster(bench: Bench, seed: int) -> None:
    assert check(bench, draw(seed)).began >= 1


@pytest.mark.lab_long
@pytest.mark.parametrize("after", ["claimed", "started", "begun", "formed"])
def test_all_lose_power_at_once_and_form_the_same_cluster_if_it_was_decided(
    bench: Bench, after: str
) -> None:
    moment = next(one for one in MOMENTS if one == after)
    cut = Fault(after=moment, delay_s=0.0, verb="power-cut", nodes=("n1", "n2", "n3"), for_s=1.0)
    plan = Plan(seed=0, nodes=3, control_plane=3, nodes_max=5, promote_s=0.5, faults=(cut,))
    # `complaints` names a second cluster that was called formed.
    assert check(bench, plan).generation == 1


def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clusters: list[str]) -> Witness:
    """Have this very process be the k3s of each node, by the records of their supervisors."""
    monkeypatch.setattr("simulations.lab.places.ROOT", tmp_path)
    nodes: list[NodePlaces] = []
    for number, cluster in enumerate(clusters):
        node = Places("chaos").node(f"n{number + 1}")
        (node.state / "k3s").mkdir(parents=True)
        me = record_of(os.getpid())
        write_json(node.state / "k3s" / "running.json", me | {"incarnation": f"{cluster}/1"})
        nodes.append(node)
    return Witness(tuple(nodes))


def test_two_clusters_that_run_at_one_time_are_a_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = stand(tmp_path, monkeypatch, ["a", "b", "a"])
    witness.look()
    assert [dict(clash.clusters) for clash in witness.clashes] == [
        {"a": ("n1", "n3"), "b": ("n2",)}
    ]
    assert witness.clusters == ["a", "b"]


def test_a_frozen_machine_runs_nothing_and_has_two_seconds_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    witness = stand(tmp_path, monkeypatch, ["a", "b"])
    witness.freeze("n1")
    witness.look()
    witness.resume("n1")
    now[0] += 1.9
    witness.look()
    assert witness.clashes == []
    now[0] += 0.2
    witness.look()
    assert len(witness.clashes) == 1


def test_one_cluster_on_all_nodes_is_no_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = stand(tmp_path, monkeypatch, ["a", "a", "a"])
    witness.look()
    assert (witness.clashes, witness.clusters) == ([], ["a"])
