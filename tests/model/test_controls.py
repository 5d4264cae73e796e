"""The harness bites: a strategy that must start two clusters does, or passing means nothing.

For mutants of the protocol see test_mutants.py and test_schedules.py.
"""

from __future__ import annotations

from simulations.model.kairos import KAIROS
from simulations.model.runs import run_seed

ALL = range(800)


def test_leading_by_visible_nodes_starts_two_clusters_in_more_than_one_seed_in_twenty() -> None:
    doubles = [seed for seed in ALL if run_seed(seed, KAIROS).starts > 1]
    assert len(doubles) > len(ALL) / 20
