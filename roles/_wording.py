"""Genesis in words: its phase, what was decided and what is wrong, each with its cause."""

from __future__ import annotations

from collections.abc import Sequence

from ledger import NodeId
from roles._electorate import HaltReason
from roles._journal import Memory, ballot_of
from roles._messages import Ballot
from roles._records import (
    Abandon,
    Claim,
    Decision,
    Done,
    Started,
    Value,
    Void,
    decode_value,
)
from roles._state import (
    SLOTS,
    Generation,
    GenesisPhase,
    GenesisState,
    Problem,
    Slot,
    SlotState,
)
from roles._types import ClusterPlan, in_words
from roles._view import View
from roles._waiting import waiting_for


def describe(view: View) -> GenesisState:
    """Return the state as it is shown."""
    memory, forming = view.memory, view.term.forming
    done = memory.decided.get("done")
    halt = _halt(view)
    newest = next((memory.decided[s] for s in reversed(SLOTS) if s in memory.decided), None)
    formed = memory.formed and view.plan is not None
    uid = done.value.kube_system_uid if done and isinstance(done.value, Done) else None
    before = sorted(g for g in view.journal.memories if g < memory.generation)
    return GenesisState(
        phase=_phase(view, formed=formed, halt=halt),
        generation=memory.generation,
        plan=view.plan,
        started=memory.started,
        formed=memory.formed,
        may_initialise=view.log.may_initialise,
        lease_until=forming.lease_until if forming is not None else None,
        stop=forming.stop if forming is not None else False,
        waiting_for=None if formed else (halt[1].message if halt else waiting_for(view)),
        votes=len(newest.signers) if newest is not None else 0,
        kube_system_uid=uid if formed else None,
        slots=tuple(_slot_state(view, memory, slot) for slot in SLOTS),
        voters=view.stand.electorate.voters,
        quorum=view.quorum,
        lease=forming.state(mute=view.stand.mute) if forming and not forming.is_over else None,
        history=tuple(_generation(view, view.journal.of(number)) for number in before),
        spent=view.log.spent,
        rivals=_rivals(view),
        excluded=view.stand.electorate.excluded,
        problems=_problems(view, halt=halt if not formed else None),
    )


def _generation(view: View, memory: Memory) -> Generation:
    plan, over = memory.plan, memory.abandonment
    ending = over.value if over is not None else None
    return Generation(
        number=memory.generation,
        cluster_id=plan.cluster_id if plan is not None else None,
        initialiser=plan.initialiser if plan is not None else None,
        reason=ending.reason if isinstance(ending, Abandon | Void) else None,
        failed=ending.failed if isinstance(ending, Abandon) else (),
        slots=tuple(_slot_state(view, memory, slot) for slot in SLOTS),
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
    if not view.stand.may_vote:
        return None
    journal, halt = view.journal, view.stand.electorate.halt
    if journal.gap is not None:
        fix = (
            "nothing is needed if enough others vote; otherwise put its newest disk back, or start "
            "all machines afresh with a new token"
        )
        return "halted-lost-memory", _error("MESH-4005", journal.gap, fix)
    foreign = sorted(journal.limits - {view.bounds.limits})
    if foreign:
        message = f"this node has voted with {in_words(foreign[0])}, and is now set up differently"
        return "halted-settings-mismatch", _error("MESH-4002", message, "put the settings back")
    others = sorted(journal.followed - {view.bounds.limits})
    if others:
        message = (
            f"this node is set up for {in_words(view.bounds.limits)}, and follows what machines "
            f"with {in_words(others[0])} decided: it does not vote"
        )
        fix = (
            "nothing is needed if it is to be a worker there; otherwise give all machines the same "
            "p2p.auto.ha and p2p.meshd.nodes_max, and a new token"
        )
        return "halted-settings-mismatch", _error("MESH-4002", message, fix)
    if halt is not None:
        return _HALTED[halt.reason], _error(halt.code, halt.message, halt.fix)
    return None


def _phase(view: View, *, formed: bool, halt: _Halted | None) -> GenesisPhase:
    decided = view.memory.decided
    if formed:
        return "formed"
    if halt is not None and ("claim" not in decided or halt[0] == "halted-too-many-voters"):
        return halt[0]
    if view.memory.started and view.plan is not None:
        return "started"
    if view.plan is not None:
        return "claimed"
    return "voting" if view.attempt is not None or view.journal.has_voted else "discovering"


def _slot_state(view: View, memory: Memory, slot: Slot) -> SlotState:
    decision, vote = memory.decided.get(slot), memory.accepted.get(slot)
    current = memory is view.memory and view.attempt is not None and view.attempt.slot == slot
    attempt = view.attempt if current else None
    ballot = memory.floor(slot)
    signers: tuple[NodeId, ...] = ()
    if decision is not None:
        ballot, signers = decision.ballot, decision.signers
    elif attempt is not None:
        ballot, signers = attempt.ballot, tuple(sorted(attempt.votes))
    voted_for = decode_value(vote.value, slot, memory.generation) if vote is not None else None
    return SlotState(
        slot=slot,
        decided=decision is not None,
        ballot=_pair(ballot),
        signers=signers,
        proposer=ballot.node if ballot is not None else None,
        value=_value_in_words(view, decision.value) if decision is not None else None,
        voted=_pair(ballot_of(vote)) if vote is not None else None,
        voted_for=_value_in_words(view, voted_for) if voted_for is not None else None,
        promises=tuple(sorted(attempt.promises)) if attempt is not None else (),
    )


def _pair(ballot: Ballot | None) -> tuple[int, NodeId] | None:
    return (ballot.round, ballot.node) if ballot is not None else None


def _value_in_words(view: View, value: Value) -> str:
    match value:
        case Claim(plan):
            members = ", ".join(view.name(seat.node) for seat in plan.seats)
            return f"{view.name(plan.initialiser)} starts cluster {plan.cluster_id[:8]} ({members})"
        case Started(initialiser):
            return f"{view.name(initialiser)} may start it"
        case Done(_, _, voters):
            return f"formed, with {len(voters)} etcd voters"
        case Abandon(_, reason, _):
            return f"abandoned: {reason}"
        case Void():
            return f"abandoned: {value.reason}"


def _problems(view: View, *, halt: _Halted | None) -> tuple[Problem, ...]:
    faulty = (
        _error(
            "MESH-4006",
            f"{view.name(culprit)} signed two values for one ballot; its votes do not count",
            "its key is in use on two machines, or its software is broken: take it away",
        )
        for culprit in sorted(view.journal.proofs)
    )
    doubled = (
        _error(
            "MESH-4007",
            f"{_places(conflicts)} also decided otherwise, by "
            f"{view.names({one for c in conflicts for one in c.signers})}: "
            f"{_how_it_came(view)}{_both(view, conflicts[0])}",
            _way_out(view, conflicts[0]),
        )
        for conflicts in _by_cluster(view)
    )
    gave_up = view.memory.gave_up
    given_up = (
        [
            Problem(
                code="MESH-4009",
                severity="warning",
                message=f"this node gave generation {view.memory.generation} up: {gave_up}",
                fix="nothing is needed: the voters begin the next generation by themselves"
                if view.log.void is not None or not view.log.conflicts
                else "see MESH-4007",
            )
        ]
        if gave_up is not None and not view.memory.formed
        else []
    )
    return (*([halt[1]] if halt is not None else []), *faulty, *doubled, *given_up)


def _way_out(view: View, conflict: Decision) -> str:
    if view.log.void is not None and conflict.generation == view.log.generation:
        return "nothing is needed: when both leases are over, one vote ends both plans"
    if view.memory.formed or view.plan is None:
        return "two clusters were made from one token; nothing is stopped: decide which one stays"
    return (
        f"this node's cluster forms only if {view.quorum} machines follow it; if fewer do, give "
        "those a new token, with meshd's state and k3s' data there moved away"
    )


def _by_cluster(view: View) -> list[list[Decision]]:
    """Return what contradicts the log here, by the cluster that it is of, in the log's order."""
    order = sorted(view.log.conflicts.values(), key=lambda c: (c.generation, SLOTS.index(c.slot)))
    found: dict[str, list[Decision]] = {}
    for conflict in order:
        plan = _plan_of(view, conflict)
        found.setdefault(plan.cluster_id if plan is not None else "", []).append(conflict)
    return list(found.values())


def _places(conflicts: Sequence[Decision]) -> str:
    """Name slots of the log, with the verb that follows."""
    slots: dict[int, list[str]] = {}
    for conflict in conflicts:
        slots.setdefault(conflict.generation, []).append(conflict.slot)
    named = " and ".join(
        f"slot{'s' * (len(names) > 1)} {', '.join(names)} of generation {number}"
        for number, names in slots.items()
    )
    return f"{named} {'was' if len(conflicts) == 1 else 'were'}"


def _how_it_came(view: View) -> str:
    if view.bounds.is_open:
        return "machines that did not see one another voted apart, and nothing bounds their number"
    return "more machines voted than this token allows"


def _both(view: View, conflict: Decision) -> str:
    """Name both clusters, where their plans are known."""
    ours, theirs = view.plan, _plan_of(view, conflict)
    if ours is None or theirs is None or theirs == ours:
        return ""
    return f"; ours is {_cluster(view, ours)}, the other {_cluster(view, theirs)}"


def _plan_of(view: View, conflict: Decision) -> ClusterPlan | None:
    """Return the plan of the cluster that a contradicting decision speaks of, if it is known."""
    if isinstance(conflict.value, Claim):
        return conflict.value.plan
    claim = view.log.conflicts.get((conflict.generation, "claim"))
    if claim is not None and isinstance(claim.value, Claim):
        return claim.value.plan
    return view.journal.of(conflict.generation).plan


def _rivals(view: View) -> tuple[ClusterPlan, ...]:
    """Return the plans of other clusters that came of the same token."""
    found = (_plan_of(view, conflict) for conflict in view.log.conflicts.values())
    others = {plan.cluster_id: plan for plan in found if plan is not None and plan != view.plan}
    return tuple(others.values())


def _cluster(view: View, plan: ClusterPlan) -> str:
    members = ", ".join(view.name(seat.node) for seat in plan.seats)
    return f"{plan.cluster_id[:8]} of {view.name(plan.initialiser)} ({members})"


def _error(code: str, message: str, fix: str) -> Problem:
    return Problem(code=code, severity="error", message=message, fix=fix)
