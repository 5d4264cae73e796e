"""What genesis waits for, as one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from roles._election import NotYet
from roles._electorate import is_willing, machines
from roles._lease import ABANDON_AFTER_S
from roles._nomination import OPEN_SETTLE_S
from roles._records import done_voters_min
from roles._types import Candidate, ClusterPlan
from roles._view import View


def waiting_for(view: View) -> str:
    """Return what the next decision waits for."""
    plan, attempt = view.plan, view.attempt
    if view.log.void is not None:
        return (
            f"{view.quorum} votes to end two plans that were made apart, once nothing of either "
            "runs any more; then all make one"
        )
    if plan is not None and view.memory.started:
        return _waiting_for_done(view, plan)
    if plan is not None:
        return f"{view.name(plan.initialiser)} to get {view.quorum} votes to start k3s"
    if attempt is not None and view.term.nomination.enough:
        answered = view.names(attempt.answered)
        phase = "promises" if attempt.preparing else "votes"
        count = len(attempt.answered)
        return f"{count} of {view.quorum} {phase} for this node's plan ({answered})"
    return _waiting_for_voters(view)


def _waiting_for_done(view: View, plan: ClusterPlan) -> str:
    first, forming = view.name(plan.initialiser), view.term.forming
    if forming is not None:
        lease = forming.state(mute=view.stand.mute)
        generation = f"generation {plan.generation}"
        if lease.gave_up is not None and not lease.released:
            why = f"{first} gave {generation} up, as {lease.gave_up}"
            return f"k3s to be down on all members: {why}"
        if lease.released:
            return f"{view.quorum} votes to abandon {generation}: {first} gave it up"
        if lease.mute:
            silence = f"{first} was not heard for {ABANDON_AFTER_S:.0f} s"
            return f"more votes to abandon {generation}: {silence}"
        if lease.role == "initialiser" and lease.until == 0.0:
            return f"{view.quorum} voters to let k3s run: {len(lease.answered)} answered"
    needed = done_voters_min(len(plan.seats))
    members = ", ".join(view.name(seat.node) for seat in plan.seats)
    seen = f"{len(view.term.evidence.joined)} of {needed} etcd voters seen from here"
    return f"the control plane ({members}) to come up: {seen}"


def _waiting_for_voters(view: View) -> str:
    here, quorum = view.term.nomination.here, view.quorum
    names = view.names(candidate.node for candidate in here)
    seen = f"{len(here)} of {quorum} voters seen" + (f" ({names})" if names else "")
    if not view.term.nomination.enough:
        more = f"{_more(quorum - len(here))} with this token must be reachable"
        return f"{seen}: {more}{_unwilling(view.stand.candidates)}"
    plan = view.term.nomination.plan
    if isinstance(plan, NotYet):
        return plan.reason
    if view.memory.has_voted:
        return f"the vote on a plan to end ({names} are here)"
    found = len(machines(here))
    if view.bounds.is_open:
        last = f"{OPEN_SETTLE_S:.0f} s without another machine"
        return f"{seen}: {last}, then {view.name(plan.initialiser)} to propose a plan"
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
