"""Genesis in words: its phase, what it waits for and what is wrong, each with its cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ledger import NodeId
from roles._attempt import Attempt
from roles._election import NotYet
from roles._electorate import Electorate, HaltReason, is_willing, machines
from roles._journal import Memory
from roles._nomination import Nomination
from roles._records import Claim, Decision, Done, done_voters_min
from roles._state import SLOTS, GenesisPhase, GenesisState, Problem, Slot, SlotState
from roles._types import Bounds, Candidate, ClusterPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything `describe` reads."""

    me: NodeId
    bounds: Bounds
    generation: int
    may_vote: bool
    memory: Memory
    attempt: Attempt | None
    electorate: Electorate
    candidates: tuple[Candidate, ...]
    nomination: Nomination
    joined: tuple[str, ...]
    conflicts: tuple[Decision, ...]
    may_initialise: bool

    @property
    def plan(self) -> ClusterPlan | None:
        """The decided plan."""
        claim = self.memory.decided.get("claim")
        if claim is None or not isinstance(claim.value, Claim):
            return None
        return claim.value.plan

    def name(self, node: NodeId) -> str:
        """Return what people call a node; of an unknown one the end of its id."""
        return next((c.shown for c in self.candidates if c.node == node), node[-8:])

    def names(self, nodes: Iterable[NodeId]) -> str:
        """Return several names, sorted, with commas."""
        return ", ".join(sorted(self.name(node) for node in nodes))


def describe(view: View) -> GenesisState:
    """Return the state as it is shown."""
    decided = view.memory.decided
    done = decided.get("done")
    halt = _halt(view)
    newest = next((decided[slot] for slot in reversed(SLOTS) if slot in decided), None)
    formed = done is not None and view.plan is not None
    uid = done.value.kube_system_uid if done and isinstance(done.value, Done) else None
    return GenesisState(
        phase=_phase(view, formed=formed, halt=halt),
        generation=view.generation,
        plan=view.plan,
        may_initialise=view.may_initialise,
        waiting_for=None if formed else (halt[1].message if halt else _waiting_for(view)),
        votes=len(newest.signers) if newest is not None else 0,
        kube_system_uid=uid if formed else None,
        slots=tuple(_slot_state(view, slot) for slot in SLOTS),
        voters=view.electorate.voters,
        excluded=view.electorate.excluded,
        problems=_problems(view, halt=halt if not formed else None),
    )


_Halted = tuple[GenesisPhase, Problem]

_HALTED: dict[HaltReason, GenesisPhase] = {
    "too-many-voters": "halted-too-many-voters",
    "settings-mismatch": "halted-settings-mismatch",
    "equivocation": "halted-equivocation",
    "lost-memory": "halted-lost-memory",
}


def _halt(view: View) -> _Halted | None:
    """Return why this node, which would vote, does not."""
    if not view.may_vote:
        return None
    memory, halt = view.memory, view.electorate.halt
    if memory.gap is not None:
        fix = (
            "nothing is needed if enough others vote; otherwise put its newest disk back, or start "
            "all machines afresh with a new token"
        )
        return "halted-lost-memory", _error("MESH-4005", memory.gap, fix)
    foreign = sorted(memory.limits - {view.bounds.limits})
    if foreign:
        most, quorum, control_plane = foreign[0]
        message = (
            f"this node has voted with {most} machines, quorum {quorum}, control plane "
            f"{control_plane}, and is now set up differently"
        )
        return "halted-settings-mismatch", _error("MESH-4002", message, "put the settings back")
    if halt is not None:
        return _HALTED[halt.reason], _error(halt.code, halt.message, halt.fix)
    return None


def _phase(view: View, *, formed: bool, halt: _Halted | None) -> GenesisPhase:
    decided = view.memory.decided
    if formed:
        return "formed"
    if halt is not None and ("claim" not in decided or halt[0] == "halted-too-many-voters"):
        return halt[0]
    if "started" in decided and view.plan is not None:
        return "started"
    if view.plan is not None:
        return "claimed"
    return "voting" if view.attempt is not None or view.memory.has_voted else "discovering"


def _waiting_for(view: View) -> str:
    plan, attempt = view.plan, view.attempt
    if plan is not None and "started" in view.memory.decided:
        needed = done_voters_min(len(plan.seats))
        members = ", ".join(view.name(seat.node) for seat in plan.seats)
        seen = f"{len(view.joined)} of {needed} etcd voters seen from here"
        return f"the control plane ({members}) to come up: {seen}"
    if plan is not None:
        return f"{view.name(plan.initialiser)} to get {view.bounds.quorum} votes to start k3s"
    if attempt is not None and view.nomination.enough:
        answered = view.names(attempt.answered)
        phase = "promises" if attempt.preparing else "votes"
        count = len(attempt.answered)
        return f"{count} of {view.bounds.quorum} {phase} for this node's plan ({answered})"
    return _waiting_for_voters(view)


def _waiting_for_voters(view: View) -> str:
    here, quorum = view.nomination.here, view.bounds.quorum
    names = view.names(candidate.node for candidate in here)
    seen = f"{len(here)} of {quorum} voters seen" + (f" ({names})" if names else "")
    if not view.nomination.enough:
        more = f"{_more(quorum - len(here))} with this token must be reachable"
        return f"{seen}: {more}{_unwilling(view.candidates)}"
    plan = view.nomination.plan
    if isinstance(plan, NotYet):
        return plan.reason
    if view.memory.has_voted:
        return f"the vote on a plan to end ({names} are here)"
    found = len(machines(here))
    if found < view.bounds.nodes_max:
        return f"{seen}: a moment for the other machines of {view.bounds.nodes_max}, then a plan"
    return f"{seen}: {view.name(plan.initialiser)} to propose a plan"


def _unwilling(candidates: Sequence[Candidate]) -> str:
    """Say who is known and cannot be the one that is missing."""
    idle = [
        f"{c.shown} does not vote: its role is {c.wish}"
        if c.wish in ("worker", "none")
        else f"{c.shown} may not vote"
        for c in sorted(candidates, key=lambda c: c.shown)
        if not is_willing(c)
    ]
    return f" ({'; '.join(idle)})" if idle else ""


def _more(count: int) -> str:
    return "one more machine" if count == 1 else f"{count} more machines"


def _slot_state(view: View, slot: Slot) -> SlotState:
    decision = view.memory.decided.get(slot)
    attempt = view.attempt if view.attempt is not None and view.attempt.slot == slot else None
    ballot = view.memory.floor(slot)
    signers: tuple[NodeId, ...] = ()
    if decision is not None:
        ballot, signers = decision.ballot, decision.signers
    elif attempt is not None:
        ballot, signers = attempt.ballot, tuple(sorted(attempt.votes))
    return SlotState(
        slot=slot,
        decided=decision is not None,
        ballot=(ballot.round, ballot.node) if ballot is not None else None,
        signers=signers,
        proposer=ballot.node if ballot is not None else None,
    )


def _problems(view: View, *, halt: _Halted | None) -> tuple[Problem, ...]:
    faulty = (
        _error(
            "MESH-4006",
            f"{view.name(culprit)} signed two values for one ballot; its votes do not count",
            "its key is in use on two machines, or its software is broken: take it away",
        )
        for culprit in sorted(view.memory.proofs)
    )
    doubled = (
        _error(
            "MESH-4007",
            f"slot {conflict.slot} was also decided otherwise, by {view.names(conflict.signers)}: "
            "more machines voted than this token allows",
            "two clusters were made from one token; nothing is stopped: decide which one stays",
        )
        for conflict in view.conflicts
    )
    return (*([halt[1]] if halt is not None else []), *faulty, *doubled)


def _error(code: str, message: str, fix: str) -> Problem:
    return Problem(code=code, severity="error", message=message, fix=fix)
