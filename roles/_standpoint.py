"""What this node is in genesis at the moment: whether it votes, with whom, and from what it must
keep its hands as far as the lease is concerned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger import Instant, NodeId
from roles._electorate import Electorate, electorate
from roles._evidence import K3sReading
from roles._hearing import Hearing
from roles._journal import Journal, row_of_quorum
from roles._lease import Around
from roles._log import DecisionLog
from roles._messages import Accept, Prepare
from roles._records import Abandon, Done, Started, Void, decode_value
from roles._state import Effect, Record, Slot
from roles._types import Bounds, Candidate, Limits

if TYPE_CHECKING:
    from roles._term import Term


class Standpoint:
    """Looks at journal, log, candidates and k3s; `term` is the current generation's.

    Args:
        may_vote: whether this node's token and role let it vote.
    """

    def __init__(
        self,
        me: NodeId,
        *,
        bounds: Bounds,
        may_vote: bool,
        journal: Journal,
        log: DecisionLog,
        hearing: Hearing,
    ) -> None:
        self._me = me
        self._bounds = bounds
        self.may_vote = may_vote
        self._journal = journal
        self._log = log
        self._hearing = hearing
        self.reading = K3sReading()
        self.electorate = Electorate(voters=(), excluded=(), halt=None, quorum=bounds.quorum)
        self.candidates: tuple[Candidate, ...] = ()
        self.shown: dict[NodeId, str] = {}  # What people call the candidates.
        self.present: frozenset[NodeId] = frozenset()

    def look(
        self, candidates: Sequence[Candidate], present: frozenset[NodeId], now: Instant
    ) -> bool:
        """Take who is known and who is here; return whether that is news."""
        view = tuple(sorted(candidates, key=lambda c: c.node)), present
        if view == (self.candidates, self.present):
            return False
        self.candidates, self.present = view
        self.shown = {candidate.node: candidate.shown for candidate in self.candidates}
        self._hearing.update(present, now)
        return True

    def recount(self, term: Term, now: Instant) -> None:
        """Find out anew who votes, this node included, and tell the parts of the generation."""
        self.electorate = electorate(
            self.candidates,
            me=self._me,
            bounds=self._bounds,
            has_voted=self._journal.has_voted,
            present=self.present,
            proven_faulty=frozenset(self._journal.proofs),
            settings_matter="claim" not in self._log.memory.decided,
            quorum_known=self._journal.quorum,
        )
        if self._bounds.is_open:
            self._journal.quorum = self.electorate.quorum  # Who was counted once stays counted.
        voters = self.electorate.voters
        self._log.voters = term.turns.voters = voters
        term.proposer.count_only(voters, self.electorate.quorum)
        term.nomination.update(
            self.candidates,
            voters,
            self.present,
            now,
            quorum=self.electorate.quorum,
            spent=self._log.spent,
        )

    def heard_of(self, quorum: int, voter: NodeId, term: Term, now: Instant) -> None:
        """In an open network, take the quorum that a voter signed for one's own, if it is larger.

        It knows voters that this node will hear of later; until then they are counted all the same.
        """
        larger = self._bounds.is_open and quorum > self.electorate.quorum
        if larger and voter in self.electorate.voters:
            self._journal.quorum = quorum
            self.recount(term, now)

    def keep_quorum(self) -> list[Effect]:
        """Return what makes a quorum that grew durable; it stands before whatever is sent next.

        The least quorum of the network is no news: it is in the bounds of each life.
        """
        journal = self._journal
        kept = max(journal.quorum_kept, self._bounds.quorum)
        if not self._bounds.is_open or journal.quorum <= kept:
            return []
        journal.quorum_kept = journal.quorum
        return [Record((row_of_quorum(journal.quorum),))]

    @property
    def limits(self) -> Limits:
        """What this node signs of its own; a ballot with a higher quorum gets its vote, too."""
        return self._bounds.signed_with(self.electorate.quorum)

    @property
    def votes(self) -> bool:
        """Whether this node takes part at all."""
        journal = self._journal
        sound = journal.gap is None and journal.limits | journal.followed <= {self._bounds.limits}
        counted = self.electorate.halt is None and self._me in self.electorate.voters
        return self.may_vote and sound and counted

    @property
    def mute(self) -> bool:
        """Whether this node voted to abandon in a slot that is not decided otherwise (R6)."""
        memory = self._log.memory
        return any(
            slot not in memory.decided
            and isinstance(decode_value(vote.value, slot, memory.generation), Abandon | Void)
            for slot, vote in memory.accepted.items()
            if slot != "claim"
        )

    @property
    def stopped(self) -> bool:
        """Whether k3s of the current plan is down here and stays so, as the shell says."""
        plan = self._log.plan
        return plan is not None and plan.cluster_id in self.reading.stopped

    def around(self, term: Term) -> Around:
        """Return what the lease depends on."""
        plan = self._log.plan
        reading = term.evidence.about(plan) if plan is not None else None
        return Around(
            votes=self.votes,
            mute=self.mute,
            quorum=self.electorate.quorum,
            voters=self.electorate.voters,
            stopped=self.stopped,
            exits=reading.exits if reading is not None else 0,
            members=term.evidence.members,
            done_possible=term.evidence.done is not None,
            wiped=self.electorate.wiped,
            hearing=self._hearing,
        )

    def may_skip(self, ask: Prepare | Accept, value: bytes) -> bool:
        """Whether STARTED's slot may still be open: the end of all plans needs no STARTED."""
        if ask.slot != "done" or self._log.void is None:
            return False
        asked = isinstance(ask, Accept)
        return not asked or isinstance(decode_value(value, "done", ask.generation), Void)

    def permits(self, term: Term, slot: Slot, value: bytes, now: Instant) -> bool:
        """Whether this node may vote for the value now, as far as the lease is concerned."""
        found = decode_value(value, slot, term.memory.generation)
        forming = term.forming
        if isinstance(found, Void):
            may = forming is not None and forming.may_void(stopped=self.stopped, now=now)
            return may and found == self._log.void
        if isinstance(found, Started):
            return not term.memory.voided
        if isinstance(found, Done | Abandon) and self._log.void is not None:
            # Who follows the rival can agree to neither: a vote for one would only stand in the way
            # of what ends both plans.
            return False
        if not isinstance(found, Abandon):
            return True
        if slot == "done":
            return forming is not None and forming.may_abandon(stopped=self.stopped, now=now)
        return forming is None or now > forming.unstarted_from
