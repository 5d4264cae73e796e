"""Who gets which secret from whom, and when."""

from __future__ import annotations

from ledger import Instant, NodeId
from meshd.node import Directory
from meshd.node._orders import Standing
from meshd.node._seals import RETRY_AFTER_S, TAKE_OVER_AFTER_S, Seals
from tests.node import people

PLAN = people.plan(0, 1, 2)
CLAIMED = Standing(plan=PLAN)
FORMED = Standing(plan=PLAN, started=True, formed=True)
EVERYTHING_TO_SERVERS = frozenset(
    (people.IDS[n], name) for n in (1, 2) for name in ("agent-token", "server-token")
)


def asked(
    seals: Seals,
    found: Directory,
    standing: Standing,
    at: float,
    written: frozenset[tuple[NodeId, str]] = frozenset(),
) -> list[tuple[str, str]]:
    due = seals.due(found, standing, written=written, holds_secrets=True, now=Instant(at))
    return [(found.name(seal.recipient), seal.name) for seal in due]


def test_before_done_only_members_of_the_plan_get_secrets_and_only_from_the_initialiser() -> None:
    assert asked(Seals(), people.directory(0), CLAIMED, 0.0) == [
        ("n1", "agent-token"),
        ("n1", "server-token"),
        ("n2", "agent-token"),
        ("n2", "server-token"),
    ]
    assert asked(Seals(), people.directory(1), CLAIMED, 0.0) == []
    assert asked(Seals(), people.directory(3), CLAIMED, 0.0) == []


def test_without_a_plan_or_without_secrets_nothing_is_sealed() -> None:
    assert asked(Seals(), people.directory(0), Standing(), 0.0) == []
    seals = Seals()
    due = seals.due(people.directory(0), FORMED, written=(), holds_secrets=False, now=Instant(0.0))
    assert due == []
    assert seals.deadline == float("inf")


def test_after_done_workers_get_the_agent_token_and_nothing_else() -> None:
    found = people.directory(0)
    assert asked(Seals(), found, FORMED, 0.0, EVERYTHING_TO_SERVERS) == [
        ("n3", "agent-token"),
        ("n4", "agent-token"),
    ]
    facts = found[people.IDS[4]].facts
    assert facts is not None
    found[people.IDS[4]].facts = people.facts(4, wish="none")
    assert asked(Seals(), found, FORMED, 0.0, EVERYTHING_TO_SERVERS) == [("n3", "agent-token")]


def test_the_next_seat_takes_over_after_a_delay_and_at_once_if_the_first_is_away() -> None:
    found, seals = people.directory(1), Seals()
    assert asked(seals, found, FORMED, 0.0) == []
    assert seals.deadline == TAKE_OVER_AFTER_S
    assert asked(seals, found, FORMED, TAKE_OVER_AFTER_S) == [
        ("n3", "agent-token"),
        ("n4", "agent-token"),
    ]
    found[people.IDS[0]].connected = False
    assert len(asked(Seals(), found, FORMED, 0.0)) == 2


def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    found, seals = people.directory(0), Seals()
    first = asked(seals, found, CLAIMED, 0.0)
    assert asked(seals, found, CLAIMED, 1.0) == []
    assert seals.deadline == RETRY_AFTER_S
    assert asked(seals, found, CLAIMED, RETRY_AFTER_S) == first


def test_what_is_in_the_ledger_is_not_sealed_again() -> None:
    seals = Seals()
    assert asked(seals, people.directory(0), CLAIMED, 0.0, EVERYTHING_TO_SERVERS) == []
    assert seals.deadline == float("inf")
