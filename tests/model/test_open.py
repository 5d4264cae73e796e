"""Open networks in simulated time: they form, and a split is seen by everybody in it."""

from __future__ import annotations

from simulations.model.open import report, run_open_seed

SEEDS = range(4)


def test_open_networks_form_and_whatever_splits_is_shown() -> None:
    results = [run_open_seed(seed) for seed in SEEDS]
    assert [result.flaw for result in results] == [None] * len(SEEDS)
    assert sum(result.outcome == "one cluster" for result in results) > len(SEEDS) / 2
    assert any(result.theirs_doubled for result in results)  # The faults are such that it matters.
    assert f"{len(SEEDS)} open networks" in report(results)
