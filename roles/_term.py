"""One generation on one node: everything that is made anew when a generation begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Literal

from ledger import Instant, NodeId, Signer
from roles._acceptor import Acceptor
from roles._evidence import Evidence
from roles._forming import Forming
from roles._hearing import Hearing
from roles._journal import Journal, Row, read_journal
from roles._log import DecisionLog
from roles._nomination import Nomination
from roles._proposer import Proposer
from roles._records import Abandon
from roles._standpoint import Standpoint
from roles._state import Effect
from roles._turns import Turns
from roles._types import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stays the same in all generations."""

    signer: Signer
    network_id: str
    bounds: Bounds
    vip: str | None
    network: Literal["lan", "overlay"]
    rng: Random
    journal: Journal
    log: DecisionLog
    hearing: Hearing
    stand: Standpoint
    life_began: Instant


def open_frame(
    signer: Signer,
    *,
    network_id: str,
    bounds: Bounds,
    may_vote: bool,
    vip: str | None,
    network: Literal["lan", "overlay"],
    rng: Random,
    rows: Iterable[Row],
    now: Instant,
) -> Frame:
    """Read the journal, and return everything that outlives a generation."""
    me = signer.node_id
    journal = read_journal(rows, me=me, network_id=network_id)
    log = DecisionLog(me, journal, network_id=network_id, bounds=bounds, now=now)
    hearing = Hearing(now)
    stand = Standpoint(
        me, bounds=bounds, may_vote=may_vote, journal=journal, log=log, hearing=hearing
    )
    return Frame(
        signer=signer,
        network_id=network_id,
        bounds=bounds,
        vip=vip,
        network=network,
        rng=rng,
        journal=journal,
        log=log,
        hearing=hearing,
        stand=stand,
        life_began=now,
    )


class Term:
    """Acceptor, proposer, nomination, evidence, turns and lease of the log's current generation."""

    def __init__(self, frame: Frame, now: Instant) -> None:
        log, me = frame.log, frame.signer.node_id
        self._frame = frame
        self.memory = log.memory
        self.acceptor = Acceptor(frame.signer, self.memory)
        self.evidence = Evidence(me)
        self.nomination = Nomination(
            me,
            bounds=frame.bounds,
            vip=frame.vip,
            network=frame.network,
            rng=frame.rng,
            generation=self.memory.generation,
            failed_before=failed_before(frame.journal, self.memory.generation),
        )
        self.turns = Turns(
            me,
            log,
            nomination=self.nomination,
            evidence=self.evidence,
            hearing=frame.hearing,
            now=now,
        )
        self.proposer = Proposer(
            frame.signer,
            network_id=frame.network_id,
            bounds=frame.bounds,
            generation=self.memory.generation,
            acceptor=self.acceptor,
            memory=self.memory,
            own_value=self.turns.own_value,
            permits=lambda slot, value, now: frame.stand.permits(self, slot, value, now),
            rng=frame.rng,
            now=now,
        )
        self.forming: Forming | None = None
        self.follow(now)
        self.evidence.observe(log.plan, frame.stand.reading, now)

    def follow(self, now: Instant) -> None:
        """Take note of what the log says since the last time."""
        frame, log = self._frame, self._frame.log
        plan, claim = log.plan, log.claim_hash
        self.turns.note_open_slot(now)
        self.evidence.weigh(plan, now)
        if self.forming is None and plan is not None and plan.leased and claim is not None:
            self.forming = self.turns.forming = Forming(
                frame.signer,
                self.memory,
                network_id=frame.network_id,
                limits=lambda: frame.stand.limits,
                claim=claim,
                rng=frame.rng,
                life_began=frame.life_began,
                is_open=frame.bounds.is_open,
                now=now,
                may_initialise=lambda: log.may_initialise,
                brief=self._brief,
            )

    def meet_rival(self, now: Instant) -> None:
        """Take note of a rival plan, if the log knows one."""
        if self.forming is not None and self._frame.log.void is not None:
            self.forming.meet_rival(now)

    def _brief(self, voter: NodeId) -> list[Effect]:
        return self._frame.log.tell_since(voter, (self.memory.generation, "claim"))


def failed_before(journal: Journal, generation: int) -> dict[NodeId, int]:
    """Return who failed in the generations before, and how it ranks: the lower, the better.

    Who failed longer ago comes first; of one generation, the initialiser that is not blamed. It
    comes after all others nevertheless: what it saw may be wrong, and each gets its turn.
    """
    failed: dict[NodeId, int] = {}
    for number, memory in sorted(journal.memories.items()):
        over = memory.abandonment
        if number < generation and over is not None and isinstance(over.value, Abandon):
            failed[over.value.initialiser] = 2 * number
            failed |= dict.fromkeys(over.value.failed, 2 * number + 1)
    return failed
