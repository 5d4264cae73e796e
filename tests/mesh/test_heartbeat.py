"""A link's heartbeats: rhythm, silence, round trips; no clock but the numbers given."""

from __future__ import annotations

import pytest

from meshd.mesh.heartbeat import LinkWatch, rtt_class_ms
from meshd.mesh.wire import Heartbeat


def test_the_answering_end_rides_on_the_leading_ends_rhythm() -> None:
    leader, answerer = LinkWatch(0.0, leads=True), LinkWatch(0.0, leads=False)
    sent = 0
    for second in range(10):
        now = float(second)
        assert leader.due(now)
        assert not answerer.due(now)
        if answerer.take(leader.next_heartbeat(now), now + 0.001):
            sent += 1
            leader.take(answerer.next_heartbeat(now + 0.001), now + 0.002)
    assert sent == 10
    assert leader.rtt_ms == pytest.approx(2.0)
    assert answerer.rtt_ms == pytest.approx(2.0, abs=0.1)


def test_an_answering_end_with_nothing_to_answer_speaks_by_itself() -> None:
    watch = LinkWatch(0.0, leads=False)
    watch.next_heartbeat(0.0)
    assert not watch.due(1.9)
    assert watch.due(2.0)
    watch.next_heartbeat(2.01)
    assert not watch.due(3.9)
    assert watch.due(4.0)


def test_a_round_trip_leaves_out_how_long_the_peer_held_it() -> None:
    watch = LinkWatch(0.0, leads=True)
    number = watch.next_heartbeat(10.0).number
    watch.take(Heartbeat(number=1, echo=number, held_us=900_000), 10.905)
    assert watch.rtt_ms == pytest.approx(5.0)


def test_three_seconds_of_silence_make_suspect_once_and_a_sign_of_life_clears_it() -> None:
    watch = LinkWatch(0.0, leads=True)
    assert watch.observe(2.9) is None
    assert watch.observe(3.0) == ("suspect", None)
    assert watch.observe(3.5) is None
    assert not watch.silent(5.9)
    assert watch.silent(6.0)
    watch.heard(5.9)
    assert watch.observe(5.9) == ("alive", None)


def test_a_watcher_that_did_not_run_does_not_accuse() -> None:
    watch = LinkWatch(0.0, leads=True)
    watch.excuse(20.0)
    assert watch.observe(21.0) is None
    assert watch.observe(23.1) == ("suspect", None)


def test_small_delays_of_the_loop_excuse_nothing() -> None:
    watch = LinkWatch(0.0, leads=True)
    for _ in range(20):
        watch.excuse(0.4)
    assert watch.observe(3.0) == ("suspect", None)


def test_the_deadline_is_the_next_heartbeat_or_judgement() -> None:
    watch = LinkWatch(0.0, leads=True)
    assert watch.deadline() == 0.0
    watch.next_heartbeat(0.0)
    assert watch.deadline() == 1.0
    watch.next_heartbeat(2.5)
    assert watch.deadline() == 3.0
    watch.observe(3.0)
    assert watch.deadline() == 3.0
    watch.next_heartbeat(3.0)
    assert watch.deadline() == 4.0


def test_links_that_came_up_at_different_times_beat_together_soon() -> None:
    watches = [LinkWatch(at, leads=True) for at in (0.0, 0.3, 0.7)]
    for watch, at in zip(watches, (0.0, 0.3, 0.7), strict=True):
        assert watch.due(at)
        watch.next_heartbeat(at)
    assert [watch.deadline() for watch in watches] == [1.0, 1.0, 2.0]
    for watch in watches[:2]:
        watch.next_heartbeat(1.003)
    assert [watch.deadline() for watch in watches] == [2.0, 2.0, 2.0]


def round_trips(watch: LinkWatch, rtt_ms: float, times: int) -> list[float | None]:
    """Let `times` round trips happen; return those reported."""
    reported = []
    for n in range(times):
        now = 100.0 + n
        number = watch.next_heartbeat(now).number
        watch.take(Heartbeat(number=1, echo=number, held_us=0), now + rtt_ms / 1e3)
        if (news := watch.observe(now + rtt_ms / 1e3)) is not None:
            reported.append(news[1])
    return reported


def test_a_round_trip_is_news_when_it_changes_its_class_only() -> None:
    watch = LinkWatch(100.0, leads=True)
    assert round_trips(watch, 0.8, 40) == [pytest.approx(0.8)]
    assert round_trips(watch, 1.3, 40) == []  # Close to the border: it does not flap.
    assert round_trips(watch, 30.0, 40) == [pytest.approx(30.0)]


@pytest.mark.parametrize(
    ("rtt_ms", "expected"), [(0.1, 1), (1, 1), (1.1, 2), (2.5, 5), (9, 10), (11, 20), (600, 1000)]
)
def test_round_trip_classes_are_coarse(rtt_ms: float, expected: int) -> None:
    assert rtt_class_ms(rtt_ms) == expected
