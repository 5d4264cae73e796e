"""The harness bites: strategies and mutants that must be caught, or passing means nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulations.model.kairos import KAIROS
from simulations.model.runs import run_seed
from tests.model.broken import BROKEN

SIEGES = range(1, 4 * 400, 4)  # One seed in four is a siege: scenario.siege_of.
DUELS = range(3, 4 * 400, 4)  # One seed in four is a duel: scenario.duel_of.
ALL = range(800)


def caught(name: str, seeds: range, word: str) -> Iterator[int]:
    """Yield the seeds in which a mutant is caught breaking what `word` says."""
    results = (run_seed(seed, BROKEN[name]) for seed in seeds)
    return (result.seed for result in results if word in (result.failure or ""))


def test_leading_by_visible_nodes_starts_two_clusters_in_more_than_one_seed_in_twenty() -> None:
    doubles = [seed for seed in ALL if run_seed(seed, KAIROS).starts > 1]
    assert len(doubles) > len(ALL) / 20


def test_a_vote_that_is_sent_before_it_is_kept_is_caught() -> None:
    assert list(caught("persist-after-send", DUELS[:10], "not on its disk")) == list(DUELS[:10])


def test_a_disk_without_fsync_is_caught_by_what_it_leads_to() -> None:
    assert any(caught("no-fsync", DUELS, "two "))


def test_a_journal_that_is_lost_at_every_restart_is_caught() -> None:
    assert any(caught("no-journal", DUELS, "two "))


def test_a_quorum_of_half_the_voters_decides_twice() -> None:
    assert len(list(caught("quorum-minus-one", DUELS[:40], "two decisions"))) >= 4


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("start-before-started", "before STARTED"),
        ("formed-before-done", "before DONE"),
        ("secrets-for-everyone", "seals"),
        ("nobody-to-join", "not told whom"),
        ("any-clock", "clock"),
    ],
)
def test_an_order_or_a_secret_that_comes_too_early_is_caught(name: str, word: str) -> None:
    assert any(caught(name, ALL[:160], word))


def test_done_with_too_few_etcd_voters_is_caught() -> None:
    assert any(caught("r8-done-with-too-few", SIEGES[:20], "are needed"))
