"""Nothing is said every second, and nothing is left out uncounted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.daemon._telling import Telling
from meshd.events import Health
from meshd.observe import span
from meshd.observe._repetition import INTERVAL_S, REMEMBERED_MAX, SAME_KIND_MAX, Repetition
from tests.shell.log_bench import bench

pytestmark = pytest.mark.usefixtures("undisturbed_logging")


def test_what_is_said_each_second_is_said_once_a_minute_with_a_count() -> None:
    made = bench()
    for second in range(150):
        made.clock[0] = 1000.0 + second
        made.log.info("waiting", text="2 of 3 voters seen", **{"for": span(second)})
        made.daemon_log.flush()
    lines = made.objects()
    assert [(line["for"], line.get("left_out")) for line in lines] == [
        ("0s", None),
        ("1m00s", 59),
        ("2m00s", 59),
    ]


def test_what_was_left_out_last_is_said_later_though_it_stopped() -> None:
    made = bench()
    for _ in range(3):
        made.log.warning("peer_rejected", reason="bad frame")
    made.clock[0] += INTERVAL_S
    made.daemon_log.flush()
    made.daemon_log.flush()
    first, last = made.objects()
    assert "left_out" not in first
    # Not as if it had happened now.
    assert (last["event"], last["of"], last["left_out"]) == ("left_out", "peer_rejected", 2)


def test_a_change_is_said_at_once() -> None:
    made = bench()
    for text in ("1 of 3 seen", "2 of 3 seen", "1 of 3 seen"):
        made.log.info("waiting", text=text)
    assert [line["text"] for line in made.objects()] == ["1 of 3 seen", "2 of 3 seen"]


def test_a_stranger_who_varies_his_words_cannot_fill_the_disk() -> None:
    repetition = Repetition()
    said = [
        repetition.take({"event": "token_refused", "text": str(n)}, now=n / 1000) is not None
        for n in range(10_000)
    ]
    assert sum(said) == SAME_KIND_MAX
    assert repetition.take({"event": "role_decided", "text": "worker"}, now=10.0) == 0
    ((fields, left_out),) = repetition.due(now=75.0)
    assert (fields["event"], left_out) == ("token_refused", 10_000 - SAME_KIND_MAX)
    assert repetition.take({"event": "token_refused", "text": "again"}, now=76.0) == 0


def test_what_it_remembers_is_bounded() -> None:
    repetition = Repetition()
    for n in range(3000):
        repetition.take({"event": f"kind {n % 97}", "text": str(n)}, now=n / 1000)
    assert len(repetition._said) <= REMEMBERED_MAX


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=60))
def test_every_line_is_said_or_counted(steps: list[tuple[int, int]]) -> None:
    repetition, now, shown = Repetition(), 0.0, 0
    for kind, pause in steps:
        now += pause
        left_out = repetition.take({"event": "e", "text": str(kind)}, now)
        shown += 0 if left_out is None else 1 + left_out
        shown += sum(count for _, count in repetition.due(now))
    shown += sum(count for _, count in repetition.due(now + 2 * INTERVAL_S))
    assert shown == len(steps)


# What lasts.


def wrong(message: str, code: str = "MESH-3305", severity: Any = "warning") -> Health:
    return Health(code=code, severity=severity, message=message, fix="mend it")


def test_waiting_says_for_how_long_and_its_end_is_told() -> None:
    telling = Telling()
    first = telling.lines("n1 to start", (), 10.0)
    soon = [line for at in range(11, 70) for line in telling.lines("n1 to start", (), float(at))]
    assert soon == []
    later = telling.lines("n1 to start", (), 330.0)
    other = telling.lines("k3s to answer", (), 340.0)
    end = telling.lines(None, (), 350.0)
    told = [(line.event, line.fields.get("for")) for line in (*first, *later, *other)]
    assert told == [("waiting", "0s"), ("waiting", "5m20s"), ("waiting", "0s")]
    assert [line.fields["text"] for line in end] == ["this node is where it should be, after 5m40s"]
    assert telling.lines(None, (), 360.0) == []


def test_a_health_item_is_told_when_it_comes_changes_and_goes() -> None:
    telling = Telling()
    said = [
        telling.lines(None, health, 0.0)
        for health in (
            (wrong("n2 is lost"),),
            (wrong("n2 is lost"),),
            (wrong("n2 is lost"), wrong("n3 is lost", severity="error")),
            (),
        )
    ]
    assert [
        [(line.level, line.event, line.fields["text"]) for line in lines] for lines in said
    ] == [
        [("warning", "health", "n2 is lost")],
        [],
        [("error", "health", "n2 is lost; n3 is lost")],
        [("info", "mended", "n2 is lost; n3 is lost")],
    ]
    assert said[0][0].fields["code"] == "MESH-3305"
    assert said[0][0].fields["fix"] == "mend it"
