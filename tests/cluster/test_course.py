"""k3s that ends again and again, and k3s that hangs: what is said, and that it stays the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.cluster.course import ENDS_MIN, RUNS_S, SILENT_S, WORDS_KEPT_S, Course
from meshd.cluster.hostinit import Exit, Held
from meshd.cluster.k3s import ServerReading
from meshd.cluster.observation import observed
from meshd.events import K3sObserved
from tests.cluster.test_keeper import IDLE, SEEN

STARTING = ServerReading(obstacle="k3s does not listen yet")


def held(*, pid: int | None, exits: int, code: int = 1, words: str = "boom") -> Held:
    last = Exit(code=code, signal=None, lines=(f'level=fatal msg="{words}"',)) if exits else None
    return replace(IDLE, pid=pid, exits=exits, last_exit=last)


def said_of(course: Course, one: Held, now: float) -> K3sObserved:
    course.look(one, (), now)
    server = STARTING if one.pid is not None else None
    seen = replace(
        SEEN, held=one, server=server, loops=course.loops(now), silence=course.silence(now)
    )
    return observed(seen, K3sObserved(state="starting"))


@pytest.mark.parametrize("code", [0, 1])
def test_k3s_that_ends_again_and_again_says_the_same_while_it_runs_and_while_it_is_down(
    code: int,
) -> None:
    course = Course()
    assert said_of(course, held(pid=1, exits=0), 0.0).waiting_for == "k3s does not listen yet"
    told = []
    for end in range(1, 8):
        told.append(said_of(course, held(pid=None, exits=end, code=code), end * 10.0))
        told.append(said_of(course, held(pid=1 + end, exits=end, code=code), end * 10.0 + 5))
    late = told[2 * ENDS_MIN :]
    sentence = f"again and again: k3s ended with code {code}, saying: boom"
    assert {(one.state, one.waiting_for) for one in late} == {("failed", sentence)}


def test_k3s_that_runs_again_for_a_while_is_no_longer_said_to_end() -> None:
    course = Course()
    for end in range(ENDS_MIN + 1):
        course.look(held(pid=None, exits=end), (), float(end))
    assert course.loops(10.0)
    course.look(held(pid=1, exits=ENDS_MIN), (), 10.0)
    assert course.loops(10.0 + RUNS_S - 1)
    assert not course.loops(10.0 + RUNS_S)


def test_k3s_hangs_from_its_start_until_it_was_ready_once() -> None:
    course = Course()
    course.look(held(pid=1, exits=0), (), 5.0)
    assert course.hangs_s(25.0) == 20.0
    course.is_well(25.0)
    course.look(held(pid=1, exits=0), (), 90.0)
    assert course.hangs_s(90.0) == 0.0
    course.look(held(pid=2, exits=1), (), 100.0)
    assert course.hangs_s(110.0) == 10.0
    course.look(held(pid=None, exits=2), (), 120.0)
    assert course.hangs_s(200.0) == 0.0


def test_a_few_ends_over_the_weeks_are_no_loop() -> None:
    course = Course()
    for end in range(10):
        course.look(held(pid=None, exits=end), (), end * 1e6)
        course.look(held(pid=10 + end, exits=end), (), end * 1e6 + 5)
        course.is_well(end * 1e6 + 60)
    assert not course.loops(1e7)


def test_ends_before_the_daemon_started_do_not_count_nor_those_of_another_incarnation() -> None:
    course = Course()
    ends = [50, 50 + ENDS_MIN, 0]
    loops = []
    for now, exits in enumerate(ends):
        course.look(held(pid=1 + now, exits=exits), (), float(now))
        loops.append(course.loops(float(now)))
    assert loops == [False, True, False]


def test_k3s_that_hangs_is_quoted_and_the_quotation_changes_slowly() -> None:
    course = Course()
    course.look(held(pid=1, exits=0), ['level=info msg="Waiting for etcd"'], 0.0)
    assert course.silence(SILENT_S - 1) is None
    assert course.silence(SILENT_S) == "Waiting for etcd"
    course.look(held(pid=1, exits=0), ["level=info msg=other"], SILENT_S + 1)
    assert course.silence(SILENT_S + 1) == "Waiting for etcd"
    assert course.silence(SILENT_S + WORDS_KEPT_S) == "other"
    now = said_of(course, held(pid=1, exits=0), SILENT_S + WORDS_KEPT_S)
    assert now.state == "starting"
    assert now.waiting_for == ("k3s does not listen yet, for over two minutes; it last said: other")


def test_k3s_that_was_ready_has_time_to_become_it_again() -> None:
    course = Course()
    course.look(held(pid=1, exits=0), (), 0.0)
    course.is_well(1000.0)
    assert course.silence(1000.0 + SILENT_S - 1) is None
    assert course.silence(1000.0 + SILENT_S) == "nothing"
