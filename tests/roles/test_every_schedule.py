"""Every schedule of a small log slot: three voters, some ballots, any loss, order and crashes.

The acceptor and the rule of adoption are the real ones; each of their steps is computed once and
remembered, so that the search itself walks over plain tuples. Before every step an acceptor is
rebuilt from its journal, and after it what it holds in memory is what the journal gives: so a crash
at any point, of any voter, any number of times, leads to no other state. A proposer that crashes
asks no more; what it asks when it is back is another ballot. A promise is heard when it is given,
or never. That loses no schedule: what a proposer asks for depends on which promises make its
quorum and on what they say, not on when it hears them, and its questions may arrive at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import pytest

from ledger import Instant, NodeId
from roles._acceptor import Acceptor
from roles._attempt import Attempt
from roles._journal import Memory, read_journal
from roles._journal import ballot_of as ballot_of_vote
from roles._messages import (
    Accept,
    Accepted,
    Authentic,
    Ballot,
    Prepare,
    Promise,
    hash_of,
    read_frame,
    seal,
)
from roles._records import Started, encode_value
from tests.roles.world import NETWORK, signer_of

LIMITS = (3, 2, 1)
VOTERS = (0, 1, 2)
BALLOTS = (0, 1, 2)
QUORUM = 2

Journal = tuple[tuple[str, bytes], ...]
"""A voter's rows, sorted: its whole state, because it is rebuilt from them before every step."""

Proposal = tuple[tuple[tuple[int, bytes], ...], int | None]
"""Promises so far (voter, frame), and the value asked for, once there is a quorum of them."""

State = tuple[tuple[Journal, ...], tuple[Proposal, ...], frozenset[tuple[int, int, int]]]
"""Journals, proposals, and every vote ever given: (voter, ballot, value)."""


T = TypeVar("T")


class TwoValues(AssertionError):
    """Two values were chosen."""


def values() -> list[bytes]:
    return [encode_value(Started(NodeId(f"value of ballot {ballot}"))) for ballot in BALLOTS]


def ballot_of(index: int) -> Ballot:
    return Ballot(index + 1, signer_of(10 + index).node_id)


def explore() -> int:
    """Visit every state; return how many there are.

    Raises:
        TwoValues: the states contain one in which two values are chosen.
    """
    prepare, accept, adopt = cache(asked_to_prepare), cache(asked_to_accept), cache(value_asked_for)
    start: State = (((),) * len(VOTERS), (((), None),) * len(BALLOTS), frozenset())
    seen, frontier = {start}, [start]
    while frontier:
        state = frontier.pop()
        for successor in successors(state, prepare, accept, adopt):
            if successor not in seen:
                check(successor[2])
                seen.add(successor)
                frontier.append(successor)
    return len(seen)


def check(votes: frozenset[tuple[int, int, int]]) -> None:
    chosen = {
        value
        for _, ballot, value in votes
        if sum(1 for _, b, v in votes if (b, v) == (ballot, value)) >= QUORUM
    }
    if len(chosen) > 1:
        raise TwoValues(f"values {sorted(chosen)} from {sorted(votes)}")


def successors(
    state: State,
    prepare: Callable[[int, Journal, int], tuple[Journal, bytes | None]],
    accept: Callable[[int, Journal, int, int], tuple[Journal, bool]],
    adopt: Callable[[int, tuple[bytes, ...]], int],
) -> list[State]:
    """Return what one delivery, of any question to any voter, leads to."""
    journals, proposals, votes = state
    found: list[State] = []
    for ballot in BALLOTS:
        promises, value = proposals[ballot]
        for voter in VOTERS:
            if value is not None:
                journal, voted = accept(voter, journals[voter], ballot, value)
                more = votes | {(voter, ballot, value)} if voted else votes
                found.append((swap(journals, voter, journal), proposals, more))
            if value is None and voter not in dict(promises):
                journal, frame = prepare(voter, journals[voter], ballot)
                after = swap(journals, voter, journal)
                found.append((after, proposals, votes))  # The answer is lost.
                if frame is None:
                    continue
                heard = tuple(sorted([*promises, (voter, frame)]))
                enough = len(heard) >= QUORUM
                asked = adopt(ballot, tuple(frame for _, frame in heard)) if enough else None
                proposal: Proposal = ((), asked) if enough else (heard, None)
                found.append((after, swap(proposals, ballot, proposal), votes))
    return found


def swap(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (*items[:index], item, *items[index + 1 :])


def restarted(voter: int, journal: Journal) -> tuple[Acceptor, Memory]:
    """Return the acceptor that a voter is after a crash: its journal is all it has."""
    signer = signer_of(20 + voter)
    whole = read_journal(journal, me=signer.node_id, network_id=NETWORK)
    assert whole.damage is None
    memory = whole.of(1)
    return Acceptor(signer, memory), memory


def asked_to_prepare(voter: int, journal: Journal, ballot: int) -> tuple[Journal, bytes | None]:
    acceptor, memory = restarted(voter, journal)
    proposer = ballot_of(ballot)
    answer = acceptor.prepare(
        Prepare(
            network_id=NETWORK,
            limits=LIMITS,
            generation=1,
            slot="started",
            ballot=proposer,
            sender=proposer.node,
        )
    )
    rows = tuple(sorted((dict(journal) | dict(answer.rows)).items()))
    assert restarted(voter, rows)[1] == memory, "a crash here would be noticed"
    return rows, None if answer.refused else answer.reply.frame


def asked_to_accept(voter: int, journal: Journal, ballot: int, value: int) -> tuple[Journal, bool]:
    acceptor, memory = restarted(voter, journal)
    proposer, raw = ballot_of(ballot), values()[value]
    answer = acceptor.accept(
        Accept(
            network_id=NETWORK,
            limits=LIMITS,
            generation=1,
            slot="started",
            ballot=proposer,
            sender=proposer.node,
            value_hash=hash_of(raw),
        ),
        raw,
    )
    rows = tuple(sorted((dict(journal) | dict(answer.rows)).items()))
    assert restarted(voter, rows)[1] == memory, "a crash here would be noticed"
    return rows, isinstance(answer.reply.message, Accepted)


def value_asked_for(ballot: int, promises: tuple[bytes, ...]) -> int:
    """Return which value the proposer of `ballot` asks for after these promises."""
    signer = signer_of(10 + ballot)
    ask = seal(
        Prepare(
            network_id=NETWORK,
            limits=LIMITS,
            generation=1,
            slot="started",
            ballot=ballot_of(ballot),
            sender=signer.node_id,
        ),
        signer,
    )
    attempt = Attempt(
        slot="started",
        ballot=ballot_of(ballot),
        ask=ask,
        resend_at=Instant(0.0),
        resend_after_s=1.0,
    )
    for frame in promises:
        promise = read_frame(frame)
        assert isinstance(promise, Authentic)
        attempt.promises[promise.message.sender] = promise
    adopted = attempt.value_to_adopt()
    return ballot if adopted is None else values().index(adopted)


@pytest.mark.parametrize(
    ("quorum", "ballots", "states"),
    [(2, 2, 1_195), (3, 2, 637), (2, 3, 21_940), (3, 3, 10_186)],
)
def test_no_schedule_chooses_two_values(
    quorum: int, ballots: int, states: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = "tests.roles.test_every_schedule"
    monkeypatch.setattr(f"{here}.QUORUM", quorum)
    monkeypatch.setattr(f"{here}.LIMITS", (3, quorum, 1))
    monkeypatch.setattr(f"{here}.BALLOTS", BALLOTS[:ballots])
    assert explore() == states


def no_adoption(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempt, "value_to_adopt", lambda _: None)


def lowest_adopted(patch: pytest.MonkeyPatch) -> None:
    def value_to_adopt(self: Attempt) -> bytes | None:
        held = [
            (sealed.message.accepted[0], sealed.value)
            for sealed in self.promises.values()
            if isinstance(sealed.message, Promise) and sealed.message.accepted is not None
        ]
        return min(held)[1] if held else None

    patch.setattr(Attempt, "value_to_adopt", value_to_adopt)


def promises_forgotten(patch: pytest.MonkeyPatch) -> None:
    def floor(self: Memory, slot: str) -> Ballot | None:
        vote = next((v for s, v in self.accepted.items() if s == slot), None)
        return ballot_of_vote(vote) if vote is not None else None

    patch.setattr(Memory, "floor", floor)


def majority_of_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("tests.roles.test_every_schedule.QUORUM", 1)


@pytest.mark.parametrize(
    "break_rule",
    [no_adoption, lowest_adopted, promises_forgotten, majority_of_one],
    ids=lambda mutant: mutant.__name__,
)
def test_the_search_finds_what_is_wrong_with(
    break_rule: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_rule(monkeypatch)
    with pytest.raises(TwoValues):
        explore()
