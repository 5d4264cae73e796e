"""The simulator's promises about meshd: 2 000 seeds in two processes, and equal runs everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulations.model.coverage import LEAST, seldom
from simulations.model.many import run_seeds
from simulations.model.runs import run_seed
from simulations.model.scenario import legal_bounds, scenario_of

ROOT = Path(__file__).parents[2]
SEEDS = range(2000)


@pytest.mark.timeout(1800)
def test_no_seed_breaks_a_promise_and_every_seed_forms_a_cluster() -> None:
    reached: Counter[str] = Counter()
    failures = []
    for result in run_seeds(SEEDS, strategy="meshd", jobs=2):
        reached.update(dict.fromkeys(result.reached, 1))
        if result.failure is not None:
            failures.append(
                f"python -m simulations.model --seed {result.seed} --trace: {result.failure}"
            )
    assert not failures, "\n".join(failures)
    missed = seldom(reached, len(SEEDS))
    assert not missed, "the runs prove less than they should:\n" + "\n".join(missed)


def test_a_run_that_explored_too_little_is_seen() -> None:
    plenty = Counter(dict.fromkeys(LEAST, 2000))
    assert seldom(plenty, 2000) == []
    for what in LEAST:
        assert len(seldom(plenty - Counter({what: 2000}), 2000)) == 1
    assert len(seldom(Counter(), 20_000)) == len(LEAST)


def test_a_seed_gives_the_same_effects_in_every_process_and_hash_seed() -> None:
    program = (
        "from simulations.model.runs import run_seed\n"
        "print([run_seed(seed, fingerprinted=True).fingerprint for seed in (1, 3, 17)])\n"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "31337")
    }
    assert len(prints) == 1
    assert len(prints.pop().split(",")) == 3


def test_a_seed_that_was_run_before_gives_the_same_effects_again() -> None:
    first = run_seed(5, fingerprinted=True)
    assert run_seed(5, fingerprinted=True) == first
    assert run_seed(9, fingerprinted=True).fingerprint != first.fingerprint


def test_scenarios_cover_every_legal_quorum_and_one_to_seven_machines() -> None:
    scenarios = [scenario_of(seed) for seed in SEEDS]
    assert {scenario.bounds for scenario in scenarios} == set(legal_bounds())
    assert {len(scenario.machines) for scenario in scenarios} >= set(range(1, 8))
    for scenario in scenarios:
        voters = sum(machine.may_vote for machine in scenario.machines)
        assert scenario.bounds.quorum <= voters < 2 * scenario.bounds.quorum


def test_the_command_names_the_seed_and_how_to_repeat_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulations.model", "--seed", "4", "--trace"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SEED=4" in done.stdout
    assert "again: python -m simulations.model --seed 4 --trace" in done.stdout
    assert "CLUSTER-INIT took effect" in done.stdout


def test_the_command_fails_and_names_the_seeds_that_break_a_promise() -> None:
    command = ["--strategy", "start-before-started", "--seeds", "4", "--jobs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "simulations.model", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "SEED=0" in done.stdout
    assert "--seed 0 --strategy start-before-started --trace" in done.stdout
