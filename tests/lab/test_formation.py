"""One file on every machine, powered on in any order: one cluster, and nobody lent a hand."""

from __future__ import annotations

import random
import time
from functools import partial

import pytest

from simulations.lab import glance
from simulations.lab.laboratory import Laboratory
from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab


def waiting_on(built: Laboratory, name: str) -> str:
    """Return what a node says it waits for."""
    found = next(one for one in glance.look(built) if one.name == name)
    return str(found.status["node"]["waiting_for"]) if found.status is not None else ""


def waits_for_one(built: Laboratory, name: str) -> bool:
    return waiting_on(built, name).startswith("2 of 3 voters seen (n1, n2): one more machine")


@pytest.mark.parametrize("seed", [3])
def test_started_one_by_one_in_random_order_they_form_one_cluster(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    built = bench.up(nodes=5, boots=False)
    names = list(built.known.names())
    rng.shuffle(names)
    for name in names:
        built.start(name)
        time.sleep(rng.uniform(0, 3))  # The machines' own pace is the scenario.
    bench.wait_until_complete(built)
    assert len(bench.clusters()) == 1


def check_a_late_machine(bench: Bench, *, late_s: float) -> None:
    """Two of three machines wait, in words, until the third is there."""
    built = bench.up(nodes=3, boots=False)
    built.start("n1")
    built.start("n2")
    for name in ("n1", "n2"):
        bench.wait_until(
            f"{name} to say whom it waits for",
            partial(waits_for_one, built, name),
        )
    time.sleep(late_s)
    assert bench.clusters() == ()
    built.start("n3")
    bench.wait_until_complete(built)
    assert len(bench.clusters()) == 1


def test_two_of_three_wait_and_say_for_whom_until_the_late_one_comes(bench: Bench) -> None:
    check_a_late_machine(bench, late_s=3)


@pytest.mark.lab_long
def test_a_machine_that_is_a_minute_late_is_waited_for(bench: Bench) -> None:
    check_a_late_machine(bench, late_s=60)


@pytest.mark.lab_long
@pytest.mark.parametrize("seed", range(10))
def test_any_order_of_seven_machines_forms_one_cluster(bench: Bench, seed: int) -> None:
    rng = random.Random(seed)
    built = bench.up(nodes=7, boots=False)
    names = list(built.known.names())
    rng.shuffle(names)
    for name in names:
        built.start(name)
        time.sleep(rng.expovariate(1 / 4))
    bench.wait_until_complete(built)
    assert len(bench.clusters()) == 1


def test_daemons_that_are_programs_of_their_own_form_too(bench: Bench) -> None:
    built = bench.up(nodes=1, control_plane=1, forks=False)
    bench.wait_until_complete(built)
    assert len(bench.clusters()) == 1
