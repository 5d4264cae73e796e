"""Why `meshd bootstrap reset` may not be, each with what would do instead. Pure.

Invariant: a reset is refused as long as the cluster may have a majority without it, and as long as
a seat is neither heard nor named dead by the operator.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger import NodeId
from meshd.errors import MeshdError, UsageError
from meshd.node._directory import Directory
from meshd.node._orders import Standing, answers, concerned, follows, is_resetting
from roles import ClusterPlan, Seat
from roles.resets import Reset, Succession


def rivals_of(directory: Directory, standing: Standing) -> tuple[Reset, ...]:
    """Return the resets that contradict what this node follows, or refuse who follows neither."""
    succession = standing.succession
    if succession.rivals and succession.chain[-1:] not in [(one,) for one in succession.rivals]:
        raise MeshdError(
            "MESH-4029",
            rivals_text(directory, succession),
            fix="run the reset on the one of them that is to stay",
        )
    return tuple(reset for reset in succession.rivals if reset not in succession.chain)


def seat_named(seats: Sequence[Seat], wanted: str) -> Seat:
    """Return the seat that an operator names, or refuse the name."""
    for seat in seats:
        if wanted in (seat.node, seat.node_name):
            return seat
    found = [seat for seat in seats if wanted == seat.node_name.rpartition("-")[0]]
    if len(found) == 1:
        return found[0]
    problem = "names several seats" if found else "names no seat of the control plane"
    shown = found or seats
    raise UsageError(
        "MESH-4027",
        f"--confirm-dead {wanted} {problem}",
        fix=f"name one of {', '.join(seat.node_name for seat in shown)}",
    )


def refuse_heard(directory: Directory, dead: Sequence[Seat], present: frozenset[NodeId]) -> None:
    """Refuse if this node itself, or a node that is heard, is named dead."""
    for seat in dead:
        if seat.node == directory.me:
            raise MeshdError(
                "MESH-4022",
                f"{directory.name(seat.node)} is this node itself, whose database is to survive",
                fix="name the others; run it on another survivor to give this node up",
            )
        if seat.node in present:
            raise MeshdError(
                "MESH-4022",
                f"{directory.name(seat.node)} is named dead, and is heard: its meshd runs",
                fix="leave it out if it is to stay; power that machine off if it is to be given up",
            )


def refuse_rivals_at_work(
    directory: Directory, standing: Standing, plan: ClusterPlan, rivals: Sequence[Reset]
) -> None:
    """Refuse while a database is heard to go on that would go on beside this one's."""
    survivors = {rival.record.survivor for rival in rivals}
    present = directory.present()
    for known in directory.others():
        if known.node not in present:
            continue
        if known.node in survivors or (answers(known, plan) and not follows(known, standing)):
            raise MeshdError(
                "MESH-4022",
                f"{known.name} has the database of another reset, and is heard: it would go on "
                "beside this one",
                fix=f"power {known.name} off and name it with --confirm-dead, or choose its reset",
            )


def refuse_at_work(directory: Directory, standing: Standing, plan: ClusterPlan) -> None:
    """Refuse while the other servers have a majority of their own: they would not stop for this."""
    present = directory.present()
    serving = [
        seat
        for seat in plan.seats
        if seat.node != directory.me
        and seat.node in present
        and answers(directory[seat.node], plan)
        and follows(directory[seat.node], standing)
    ]
    if len(serving) > len(plan.seats) // 2:
        raise MeshdError(
            "MESH-4021",
            f"{names_of(directory, serving)} serve without this node: its reset would split them",
            fix="power so many of them off that they have no majority, and name those with "
            "--confirm-dead: they come back as workers",
        )


def refuse_repairable(directory: Directory, plan: ClusterPlan, *, api_answers: bool) -> None:
    """Refuse while an API server of the cluster answers: etcd has its majority."""
    present = directory.present()
    serving = ["this node"] if api_answers else []
    for seat in plan.seats:
        record = directory[seat.node].k3s
        if seat.node == directory.me or seat.node not in present or record is None:
            continue
        if record.endpoint is not None and record.cluster_id == plan.cluster_id:
            serving.append(directory.name(seat.node))
    if serving:
        raise MeshdError(
            "MESH-4021",
            f"the API server of {' and '.join(serving)} answers, so etcd has its majority",
            fix="nothing is to be reset: a server that lost its database joins again by itself, "
            "see `meshd status`",
        )


def refuse_unaccounted(directory: Directory, silent: Sequence[Seat]) -> None:
    """Refuse while a server is neither heard nor named dead."""
    if silent:
        raise MeshdError(
            "MESH-4023",
            f"{names_of(directory, silent)} has a seat, is not heard, and is not named dead: it "
            "may be alive where this node does not see it, and serve",
            fix="bring it back, or, once it is certain that it never runs again as it was: "
            + " ".join(f"--confirm-dead {directory.name(seat.node)}" for seat in silent),
        )


def refuse_majority(directory: Directory, plan: ClusterPlan, steady: Sequence[Seat]) -> None:
    """Refuse if the seats that are heard, at the addresses that etcd knows, are a majority."""
    if len(steady) <= len(plan.seats) // 2:
        return
    names = [directory.name(seat.node) for seat in steady if seat.node != directory.me]
    me = ["this node"] if len(names) < len(steady) else []
    moved = [seat for seat in steady if _has_moved(directory, seat)]
    fix = (
        "see in `meshd status` what k3s waits for there; to give up a seat whose database is lost, "
        "power that machine off and name it with --confirm-dead"
    )
    if moved:
        fix = (
            f"{names_of(directory, moved)} has another address now: give back those that the "
            "cluster knows, or, if they are gone for good, add --readdress"
        )
    raise MeshdError(
        "MESH-4021",
        f"{' and '.join([*me, ', '.join(names) or 'nobody else'])} are {len(steady)} of "
        f"{len(plan.seats)} seats: etcd can have its majority again",
        fix=fix,
    )


def _has_moved(directory: Directory, seat: Seat) -> bool:
    facts = directory[seat.node].facts
    return facts is not None and facts.node_ip not in (None, seat.node_ip)


def refuse_under_way(directory: Directory, standing: Standing) -> None:
    """Refuse while a reset is under way here or on a server that is heard."""
    present = directory.present()
    plan = standing.plan
    assert plan is not None
    for known in (directory[s.node] for s in concerned(plan, standing.succession)):
        if not is_resetting(known, plan, standing.epoch):
            continue
        if known.node == directory.me or known.node in present:
            raise MeshdError(
                "MESH-4026",
                f"a reset is under way on {known.name}",
                fix="`meshd bootstrap status` there shows how far it is",
            )


def rivals_text(directory: Directory, succession: Succession) -> str:
    """Say which resets contradict one another."""
    told = [
        f"{directory.name(rival.record.survivor)} (by {rival.record.by})"
        for rival in succession.rivals
    ]
    return (
        f"etcd's membership was reset apart, on {' and on '.join(told)}: each has a database that "
        "goes its own way"
    )


def names_of(directory: Directory, seats: Sequence[Seat]) -> str:
    """Return the names of several seats, with commas."""
    return ", ".join(directory.name(seat.node) for seat in seats)
