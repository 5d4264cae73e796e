"""Whose wall clock may start k3s: judged by the voters', told once, and never for good."""

from __future__ import annotations

from random import Random

import pytest

from ledger import Instant, Moment
from meshd.events import ClockObserved, Connected, FactsObserved, Wakeup
from meshd.node import Directory, Node
from meshd.node._clocks import RECHECK_S, in_words, judge_clocks
from meshd.node._orders import Standing, order_for
from roles import rank
from tests.node import people

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
NOW = Moment(at=Instant(1000.0), wall_ms=NOW_MS)


def clocks_of(*ahead_ms: int, workers: int = 0) -> Directory:
    """Node 0's directory; the others' clocks are ahead of `NOW_MS` by that much, in order."""
    found = people.directory(0, size=1 + len(ahead_ms))
    for number, ahead in enumerate(ahead_ms, start=1):
        known = found[people.IDS[number]]
        known.clock_epoch_ms = NOW_MS + ahead - round(NOW.at * 1000)
        if number > len(ahead_ms) - workers:
            known.facts = people.facts(number, wish="worker")
    return found


def at(wall_ms: int) -> Moment:
    return Moment(at=NOW.at, wall_ms=wall_ms)


def test_clocks_that_agree_hold_nothing_up_and_are_no_finding() -> None:
    assert judge_clocks(clocks_of(500, -700), NOW).hold is None
    assert judge_clocks(clocks_of(500, -700), NOW).health == ()
    assert judge_clocks(people.directory(0, size=1), NOW).hold is None  # Nobody to ask.


def test_a_clock_of_1970_holds_k3s_up_even_if_nobody_else_is_there() -> None:
    found = judge_clocks(people.directory(0, size=1), at(86_400_000))
    assert found.hold == (
        "this machine's clock is before 2025, so it was never set: k3s waits until it is right"
    )
    assert [(item.code, item.severity) for item in found.health] == [("MESH-3310", "error")]


@pytest.mark.parametrize("side", ["ahead of", "behind"])
def test_a_year_off_waits_and_is_named_on_both_sides(side: str) -> None:
    off = YEAR_MS if side == "ahead of" else -YEAR_MS
    odd = judge_clocks(clocks_of(0, 0), at(NOW_MS + off))
    assert f"is 365 days {side} that of most voters (n1, n2)" in str(odd.hold)
    assert [item.code for item in odd.health] == ["MESH-3311"]
    assert odd.wrong == {people.IDS[0]}
    other = judge_clocks(clocks_of(off, 0), NOW)
    assert other.hold is None
    assert other.wrong == {people.IDS[1]}
    assert [(item.code, item.message) for item in other.health] == [
        ("MESH-3301", f"the clock of n1 is 365 days {side} this node's")
    ]


def test_an_hour_is_the_border() -> None:
    assert judge_clocks(clocks_of(0, 0), at(NOW_MS + HOUR_MS)).hold is None
    assert judge_clocks(clocks_of(0, 0), at(NOW_MS + HOUR_MS + 1000)).hold is not None


def test_two_clocks_apart_and_no_third_hold_both_up() -> None:
    found = judge_clocks(clocks_of(YEAR_MS), NOW)
    assert "of this machine and of n1 are up to 365 days apart, and no majority" in str(found.hold)
    assert judge_clocks(clocks_of(YEAR_MS, 0), NOW).hold is None  # A third one tells.


def test_clocks_that_were_never_set_do_not_outvote_one_that_was() -> None:
    assert judge_clocks(clocks_of(-NOW_MS, -NOW_MS), NOW).hold is None


def test_a_worker_is_judged_by_the_voters_and_judges_nobody() -> None:
    found = clocks_of(0, 0)
    found[people.IDS[0]].facts = people.facts(0, wish="worker")
    assert judge_clocks(found, at(NOW_MS + YEAR_MS)).hold is not None
    assert judge_clocks(clocks_of(YEAR_MS, YEAR_MS, workers=2), NOW).hold is None


def test_only_neighbours_clocks_count() -> None:
    found = clocks_of(YEAR_MS, YEAR_MS)
    for known in found.others():
        known.connected = False
    assert judge_clocks(found, NOW).hold is None


def test_an_order_carries_the_hold_and_one_of_no_seat_does_not() -> None:
    found = people.directory(0)
    started = Standing(plan=people.plan(0, 1, 2), started=True, may_initialise=True)
    order = order_for(found, wish="auto", standing=started, sealed={}, hold="the clock")
    assert (order.seat, order.hold) == ("initialiser", "the clock")
    none = order_for(found, wish="auto", standing=Standing(), sealed={}, hold="the clock")
    assert none.hold is None


def test_who_has_a_wrong_clock_ranks_last_and_still_fills_a_seat() -> None:
    found = clocks_of(0, 0)
    found[people.IDS[0]].clock_is_wrong = True
    candidates = [known.candidate for known in found if known.candidate is not None]
    ranking = rank(candidates, control_plane=3)
    assert [c.node for c in ranking.eligible] == [people.IDS[1], people.IDS[2], people.IDS[0]]
    assert "its clock is wrong" in ranking.explain(people.IDS[0], control_plane=3)


def test_a_clock_set_right_ends_the_wait_without_any_other_event() -> None:
    node = Node(
        network_id="oak-7f3a9c12",
        signer=people.SIGNERS[0],
        bounds=people.BOUNDS,
        facts=people.facts(0),
        vip="10.0.0.50",
        rng=Random(1),
        now=at(86_400_000),
    )
    node.handle(FactsObserved(people.facts(0)), at(86_400_000))
    for number in (1, 2):
        node.handle(Connected(people.IDS[number], "direct"), at(86_400_000))
        node.handle(ClockObserved(people.IDS[number], NOW_MS - 1_000_000), at(86_400_000))
    assert [item.code for item in node.health] == ["MESH-3310"]
    assert node.deadline <= NOW.at + RECHECK_S
    later = Moment(at=Instant(NOW.at + RECHECK_S), wall_ms=NOW_MS + 2000)
    node.handle(Wakeup(), later)
    assert node.health == ()


def test_setting_this_nodes_own_clock_changes_nothing_about_what_others_show() -> None:
    found = clocks_of(0, YEAR_MS)
    assert judge_clocks(found, NOW).wrong == {people.IDS[2]}
    assert judge_clocks(found, at(NOW_MS + YEAR_MS)).wrong == {people.IDS[1]}


@pytest.mark.parametrize(
    ("span_ms", "words"),
    [
        (400, "less than a second"),
        (-120_000, "2 minutes"),
        (61_000, "1 minute"),
        (7_200_000, "2 hours"),
        (YEAR_MS, "365 days"),
    ],
)
def test_spans_in_words(span_ms: int, words: str) -> None:
    assert in_words(span_ms) == words
