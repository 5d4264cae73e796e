"""meshd with one rule of its decision log or its forming lease taken out, by what is inside of it.

Those that need no look inside are in `simulations.model.mutants`.
"""

from __future__ import annotations

from dataclasses import replace

from ledger import Instant
from meshd.node import _seals
from meshd.node._orders import SERVER_SECRETS
from roles import ClusterPlan, K3sReading, _evidence, _journal, _log, _records
from roles._attempt import Attempt
from roles._evidence import Evidence
from roles._forming import Forming
from roles._journal import Journal, Memory
from roles._lease import Around, MemberPart, Paper, VoterPart
from roles._log import DecisionLog
from roles._messages import Authentic, Ballot, Down, Renewed
from roles._proposer import Proposer
from roles._records import Abandon, Decision, Done, decode_value
from roles._standpoint import Standpoint
from roles._state import Effect, Record
from roles._tenure import Tenure
from simulations.model.checkers import Checkers
from simulations.model.k3s import K3s
from simulations.model.machine import Strategy
from simulations.model.mutants import MUTANTS
from simulations.model.runs import start_node

NEVER = Instant(float("inf"))
FOR_EVER = Instant(1e9)


def _lease_of_initialiser_only(self: Forming) -> Instant | None:
    """R1 taken out: a joined member's k3s has no end."""
    honest = _honest_lease_until(self)
    is_member = self._tenure is None and self._member is not None
    return FOR_EVER if is_member and honest is not None else honest


def _lease_for_ever(self: Forming) -> Instant | None:
    """The initialiser takes no notice of its lease."""
    honest = _honest_lease_until(self)
    return FOR_EVER if self._tenure is not None and honest is not None else honest


def _never_give_up(_self: Tenure, _around: Around) -> tuple[Instant, str]:
    """R2 taken out."""
    return NEVER, ""


def _counted_from_receipt(self: Tenure, answer: Renewed, around: Around, now: Instant) -> None:
    """R3 taken out: the lease begins when the answer comes."""
    if answer.sender in around.voters:
        self.answers[answer.sender] = now
        self._renew_at = Instant(self._renewed_at + 10.0)


def _forget_last_answer(self: VoterPart, paper: Paper, now: Instant) -> None:
    """R5 taken out: a restart knows nothing of what was answered before."""
    _honest_voter(self, paper, now)
    self.last_answer = Instant(float("-inf"))


def _abandon_at_once(_self: Forming, *, stopped: bool, now: Instant) -> bool:
    return stopped or now >= 0.0


def _abandons_itself_running(self: Forming, *, stopped: bool, now: Instant) -> bool:
    """R7 taken out, and R9 with it, which alone would keep x from voting while it has a lease."""
    mine = self._plan.initialiser == self._me
    return mine or _honest_may_abandon(self, stopped=stopped, now=now)


def _ends_itself_at_once(self: Forming, *, stopped: bool, now: Instant) -> bool:
    """R9 taken out: x does not wait for the shares that rest on its own answers."""
    if self._plan.initialiser == self._me:
        return self._memory.gave_up is not None and stopped
    return _honest_may_abandon(self, stopped=stopped, now=now)


def _remember_no_down(memory: Memory, found: Authentic) -> None:
    """R10 taken out: a restart knows nothing of the word that k3s is down."""
    if not isinstance(found.message, Down):
        _honest_remember(memory, found)


def _done_of_nothing(self: Evidence, plan: ClusterPlan | None, now: Instant) -> None:
    """DONE is proposed as soon as there is a plan, with all its members."""
    _honest_weigh(self, plan, now)
    if plan is not None:
        names = tuple(sorted(seat.node_name for seat in plan.seats))
        self.done, self.due = Done(plan.initialiser, "none", names), now


def _done_of_nobody(self: Evidence, plan: ClusterPlan | None, now: Instant) -> None:
    """DONE is proposed as soon as there is a plan, and names no members."""
    _honest_weigh(self, plan, now)
    if plan is not None:
        self.done, self.due = Done(plan.initialiser, "none", ()), now


def _done_of_another(self: Evidence, plan: ClusterPlan | None, now: Instant) -> None:
    """DONE names a cluster that does not exist."""
    _honest_weigh(self, plan, now)
    if self.done is not None:
        self.done = Done(self.done.initialiser, "another", self.done.voters)


def _done_of_strangers(self: Evidence, plan: ClusterPlan | None, now: Instant) -> None:
    """DONE names whoever votes in etcd, whether the plan has a seat for him or not."""
    _honest_weigh(self, plan, now)
    if self.done is not None:
        names = tuple(f"stranger-{name}" for name in self.done.voters)
        self.done = Done(self.done.initialiser, self.done.kube_system_uid, names)


def _down_unkept(self: MemberPart, around: Around, now: Instant) -> list[Effect]:
    """A member says that it is down, and writes nothing."""
    return [one for one in _honest_say_down(self, around, now) if not isinstance(one, Record)]


def _give_up_unkept(self: Tenure, reason: str) -> list[Effect]:
    """The initialiser gives up, and writes nothing."""
    _honest_give_up(self, reason)
    return []


def _intend_unkept(self: Proposer, claim: Ballot, claim_hash: bytes) -> list[Effect]:
    """The initialiser means to start, and writes nothing."""
    _honest_intend(self, claim, claim_hash)
    return []


def _one_vote_short(self: Proposer) -> bytes | None:
    """A record is written when a vote is missing still."""
    self.quorum -= 1
    try:
        return _honest_take_record(self)
    finally:
        self.quorum += 1


def _read_any_record(record: bytes, *, network_id: str, quorum: int) -> Decision:
    return _honest_read_record(record, network_id=network_id, quorum=min(quorum, 1))


def _any_reading(self: Evidence, _plan: ClusterPlan) -> K3sReading | None:
    """What k3s says is taken for the current plan's, whosever it is."""
    return self.reading


def _current_after_own_vote(self: Journal) -> Memory:
    """Who votes to abandon takes the generation for over, whatever comes of the vote."""
    memory = _honest_current.__get__(self)
    assert isinstance(memory, Memory)
    voted = any(
        isinstance(decode_value(vote.value, slot, memory.generation), Abandon)
        for slot, vote in memory.accepted.items()
        if slot not in memory.decided
    )
    return self.of(memory.generation + 1) if voted else memory


def _current_after_done(self: Journal) -> Memory:
    """DONE closes no log: another generation begins."""
    memory = _honest_current.__get__(self)
    assert isinstance(memory, Memory)
    newest = max(self.memories, default=1)
    while memory.formed and memory.generation < newest:
        memory = self.of(memory.generation + 1)
    over = memory.formed or memory.abandonment is not None
    return self.of(memory.generation + 1) if over else memory


_honest_current = Journal.current
_honest_weigh = Evidence.weigh
_honest_give_up = Tenure._give_up
_honest_intend = Proposer.intend
_honest_read_record = _records.read_record
_honest_say_down = MemberPart._say_down
_honest_take_record = Proposer.take_record
_honest_property = Forming.lease_until
_honest_may_abandon = Forming.may_abandon
_honest_remember = _journal._remember
_honest_voter = VoterPart.__init__


def _honest_lease_until(of: Forming) -> Instant | None:
    found = _honest_property.__get__(of)
    return None if found is None else Instant(found)


def _without(name: str, *broken: tuple[object, str, object]) -> Strategy:
    return Strategy(name=name, start=start_node, broken=broken)


AGAIN_AFTER_DONE = (Journal, "current", property(_current_after_done))

BROKEN = {
    **MUTANTS,
    **{
        mutant.name: mutant
        for mutant in (
            replace(MUTANTS["no-fuse"], name="r4-no-fuse"),
            _without("no-adoption", (Attempt, "value_to_adopt", lambda _self: None)),
            _without(
                "r1-members-without-lease",
                (Forming, "lease_until", property(_lease_of_initialiser_only)),
            ),
            _without("r2-never-gives-up", (Tenure, "_give_up_at", _never_give_up)),
            _without("r3-counted-from-receipt", (Tenure, "renewed", _counted_from_receipt)),
            _without("r5-restart-forgets-answers", (VoterPart, "__init__", _forget_last_answer)),
            _without("r6-not-mute", (Standpoint, "mute", property(lambda _self: False))),
            _without(
                "r7-r9-abandons-itself-running", (Forming, "may_abandon", _abandons_itself_running)
            ),
            _without("r9-ends-itself-at-once", (Forming, "may_abandon", _ends_itself_at_once)),
            _without("r10-restart-forgets-down", (_journal, "_remember", _remember_no_down)),
            _without(
                "r8-done-with-too-few",
                (_evidence, "done_voters_min", lambda _size: 1),
                (_records, "done_voters_min", lambda _size: 1),
            ),
            _without("abandon-at-once", (Forming, "may_abandon", _abandon_at_once)),
            _without("lease-ignored", (Forming, "lease_until", property(_lease_for_ever))),
            _without("down-said-too-early", (Standpoint, "stopped", property(lambda _self: True))),
            _without(
                "next-after-own-vote", (Journal, "current", property(_current_after_own_vote))
            ),
            _without("again-after-done", AGAIN_AFTER_DONE),
            _without(
                "again-after-done-unseen",
                AGAIN_AFTER_DONE,
                (Checkers, "_follows", lambda _self, _generation: None),
            ),
            _without("down-unkept", (MemberPart, "_say_down", _down_unkept)),
            _without("give-up-unkept", (Tenure, "_give_up", _give_up_unkept)),
            _without("intent-unkept", (Proposer, "intend", _intend_unkept)),
            _without(
                "one-vote-short",
                (Proposer, "take_record", _one_vote_short),
                (_records, "quorum_of", lambda _limits: 1),
                (_log, "read_record", _read_any_record),
            ),
            _without(
                "done-of-strangers",
                (Evidence, "weigh", _done_of_strangers),
                (_records, "_shortcoming", lambda _value, _plan, _slot: None),
            ),
            _without("any-reading", (Evidence, "about", _any_reading)),
            _without("keeps-its-secrets", (DecisionLog, "spent", property(lambda _: frozenset()))),
            _without("done-of-nothing", (Evidence, "weigh", _done_of_nothing)),
            _without("done-of-nobody", (Evidence, "weigh", _done_of_nobody)),
            _without("old-data-stay", (K3s, "_set_aside", lambda _self: None)),
            _without("done-of-another", (Evidence, "weigh", _done_of_another)),
            # What an order must not say, k3s' start must not do either, if nobody looks at orders.
            replace(
                MUTANTS["start-before-started"],
                name="start-before-started-unseen",
                broken=((Checkers, "ordered", lambda _self, _node, _order, _disk: None),),
            ),
            _without("server-token-for-workers", (_seals, "WORKER_SECRETS", SERVER_SECRETS)),
        )
    },
}
