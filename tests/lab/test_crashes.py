"""Power cuts while the cluster forms: one cluster, and nobody lent a hand."""

from __future__ import annotations

import random
import time

import pytest

from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab

# From the first daemon's start to the last voter, on a busy machine with two cores.
FORMATION_S = 12.0


def check_a_crash(bench: Bench, seed: int, *, nodes: int = 3) -> None:
    """Kill any one node at a random moment of formation, boot it again, and wait."""
    rng = random.Random(seed)
    built = bench.up(nodes=nodes)
    time.sleep(rng.uniform(0, FORMATION_S))  # The random moment is the scenario.
    victim = rng.choice(built.known.names())
    built.kill(victim)
    time.sleep(rng.uniform(0, 3))
    built.start(victim)
    bench.wait_until_complete(built)
    assert [one.generation for one in bench.clusters()] == [1]


@pytest.mark.parametrize("seed", range(3))
def test_any_one_node_may_lose_power_at_any_moment_of_formation(bench: Bench, seed: int) -> None:
    check_a_crash(bench, seed)


@pytest.mark.lab_long
@pytest.mark.parametrize("seed", range(100, 130))
def test_thirty_power_cuts_at_random_moments(bench: Bench, seed: int) -> None:
    check_a_crash(bench, seed, nodes=3 if seed % 2 else 5)


@pytest.mark.lab_long
@pytest.mark.parametrize("seed", range(200, 205))
def test_all_nodes_lose_power_at_once_and_come_back(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    built = bench.up(nodes=3)
    time.sleep(rng.uniform(0, 2 * FORMATION_S))
    for name in built.known.names():
        built.kill(name)
    for name in rng.sample(built.known.names(), 3):
        built.start(name)
        time.sleep(rng.uniform(0, 5))
    bench.wait_until_complete(built)
    assert [one.generation for one in bench.clusters()] == [1]
