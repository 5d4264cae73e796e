"""What an operator will want to read afterwards: each change that matters, once, with its cause."""

from __future__ import annotations

from collections.abc import Sequence

from meshd.events import K3sObserved, Note
from meshd.node._directory import Directory
from meshd.node._orders import seat_in
from roles import Candidate, ClusterPlan, GenesisState, RoleWish, rank

_LOG = ("discovering", "voting", "claimed", "started", "formed")


def genesis_notes(
    directory: Directory,
    before: GenesisState | None,
    after: GenesisState,
    *,
    wish: RoleWish,
    candidates: Sequence[Candidate],
) -> list[Note]:
    """Return what happened in the decision log between two states."""
    notes: list[Note] = []
    was = before.phase if before is not None else "discovering"
    if before is not None and after.generation > before.generation:
        notes.append(Note(kind="generation_abandoned", text=_abandoned(directory, before, after)))
    if after.phase == was and (before is None or before.plan == after.plan):
        return notes
    plan = after.plan
    if plan is not None and (before is None or before.plan != plan):
        notes.append(Note(kind="claim_decided", text=_claim(directory, plan, after.votes)))
        notes.append(Note(kind="role_decided", text=role_text(directory, plan, wish, candidates)))
    if after.phase.startswith("halted"):
        why = "; ".join(problem.message for problem in after.problems) or after.waiting_for or ""
        notes.append(Note(kind="voting_halted", text=f"this node does not vote: {why}"))
    elif was.startswith("halted"):
        notes.append(Note(kind="voting_resumed", text="what kept this node from voting is over"))
    if plan is None:
        return notes
    first = directory.name(plan.initialiser)
    if _reached(after, "started") and not _reached(before, "started"):
        notes.append(Note(kind="start_decided", text=f"{first} may start the cluster, once"))
    if after.phase == "formed":
        uid = after.kube_system_uid or "unknown"
        notes.append(
            Note(kind="cluster_formed", text=f"enough members vote in etcd; kube-system {uid}")
        )
    return notes


def role_text(
    directory: Directory, plan: ClusterPlan, wish: RoleWish, candidates: Sequence[Candidate]
) -> str:
    """Return what this node is under the plan, and why."""
    seat = seat_in(plan, directory.me, wish)
    if seat == "none":
        return "no role: p2p.role is none"
    if seat == "worker":
        ranking = rank(candidates, control_plane=len(plan.seats))
        why = ranking.explain(directory.me, control_plane=len(plan.seats))
        return why if why.startswith("worker") else "worker: the plan was made without this node"
    place = 1 + [one.node for one in plan.seats].index(directory.me)
    start = ", starts the cluster" if seat == "initialiser" else ""
    return f"control plane{start}: seat {place} of {len(plan.seats)} in the decided plan"


def k3s_notes(before: K3sObserved | None, after: K3sObserved) -> list[Note]:
    """Return what changed about k3s on this node, if it is worth a line."""
    if before is not None and before.state == after.state:
        return []
    match after.state:
        case "ready":
            return [Note(kind="k3s_ready", text=f"k3s {after.version} on this node is ready")]
        case "failed":
            return [Note(kind="k3s_failed", text=after.waiting_for or "k3s on this node failed")]
        case "starting":
            return [Note(kind="k3s_starting", text="k3s on this node is starting")]
        case "absent" | "waiting":
            return []


class AddressLog:
    """Notes who serves the virtual address; a holder that is not known for a while is no change."""

    def __init__(self) -> None:
        self._holder: str | None = None

    def notes(self, directory: Directory, observed: K3sObserved) -> list[Note]:
        """Return a line if k3s on this node names another holder than before, in this life."""
        was, now = self._holder, observed.vip_holder
        if now is None or now == was:
            return []
        self._holder = now
        names = {k.facts.node_name: k.name for k in directory if k.facts is not None}
        before = f", before by {names.get(was, was)}" if was is not None else ""
        text = f"the virtual address is served by {names.get(now, now)}{before}"
        return [Note(kind="vip_moved" if was is not None else "vip_held", text=text)]


def _claim(directory: Directory, plan: ClusterPlan, votes: int) -> str:
    seats = ", ".join(directory.name(seat.node) for seat in plan.seats)
    return (
        f"generation {plan.generation}: {directory.name(plan.initialiser)} starts the cluster, "
        f"control plane {seats}; {votes} votes"
    )


def _abandoned(directory: Directory, before: GenesisState, after: GenesisState) -> str:
    """Return what ended the generations that this node left."""
    told = []
    for one in after.history:
        if one.number >= before.generation:
            first = directory.name(one.initialiser) if one.initialiser is not None else "unknown"
            told.append(f"generation {one.number} ({first}): {one.reason or 'a later one began'}")
    ended = "; ".join(told) or f"generation {before.generation}"
    return f"abandoned: {ended}; generation {after.generation} begins"


def _reached(state: GenesisState | None, phase: str) -> bool:
    if state is None or state.phase not in _LOG:
        return False
    return _LOG.index(state.phase) >= _LOG.index(phase)
