"""Why a node has its role: seats, its own wish, the ranking, and the plan that was decided."""

from __future__ import annotations

from ledger import NodeId
from meshd.explain._evidence import listed, own_entry, record_of
from meshd.explain._given import Given
from meshd.explain._model import Cause, Explanation, Subject
from meshd.node import Known, Node, seat_in
from meshd.schema import Facts
from meshd.status import role_of
from roles import Candidate, ClusterPlan, Ranking, rank

SIZE_KEYS = (
    "p2p.network_token",
    "p2p.auto.ha.master_nodes",
    "p2p.auto.ha.enable",
    "p2p.meshd.nodes_max",
    "p2p.minimum_nodes",
)
_WISHES = {
    "auto": "no wish (p2p.role is not set, or auto): the ranking decides",
    "control-plane": "p2p.role asks for a seat: it ranks before all without that wish",
    "worker": "p2p.role is worker: it never gets a seat",
    "none": "p2p.role is none: it takes part in the mesh and runs no k3s",
}


def explain_role(node: Node, given: Given, whose: NodeId) -> Explanation:
    """Return why `whose` is what it is, as `node` knows it."""
    known, plan = node.directory.find(whose) or Known(node=whose), node.standing.plan
    running = _running(node)
    ranking = rank(running, control_plane=node.bounds.control_plane, vip=node.vip)
    causes = [
        _size(node, given),
        *_wish(node, given, known),
        *_machine(node, known),
        _order(node, ranking, plan),
        *_refused(node, ranking, whose),
        *_left_out(node, running, whose),
        *_plan(node, known, plan),
    ]
    role = role_of(node, whose, known.facts.role_wish) if known.facts is not None else None
    return Explanation(
        topic="role",
        node=Subject(id=whose, name=known.name),
        answer=_answer(node, known, role),
        causes=tuple(causes),
        waiting_for=node.genesis.state.waiting_for if plan is None else None,
        would_change_if=_changes(known, plan, formed=node.standing.formed),
    )


def _answer(node: Node, known: Known, role: str | None) -> str:
    plan = node.standing.plan
    if role == "control-plane" and plan is not None and plan.initialiser == known.node:
        return f"{role}, initialiser"
    if role is None and known.facts is None:
        return "role unknown: its facts have not arrived"
    return role or "role undecided"


def _size(node: Node, given: Given) -> Cause:
    bounds = node.bounds
    machines = "any number of" if bounds.is_open else bounds.nodes_max
    return Cause(
        subject="seats",
        text=f"{bounds.control_plane} in the control plane; {machines} machines may vote, "
        f"{node.genesis.state.quorum} must agree",
        settings=given.stated(*SIZE_KEYS),
    )


def _wish(node: Node, given: Given, known: Known) -> tuple[Cause, ...]:
    if known.facts is None:
        return ()
    mine = known.node == node.me
    return (
        Cause(
            subject="wish",
            text=_WISHES[known.facts.role_wish],
            settings=given.stated("p2p.role") if mine else (),
            entries=() if mine else own_entry(node, known.node, "facts"),
        ),
    )


def _machine(node: Node, known: Known) -> tuple[Cause, ...]:
    facts = known.facts
    if facts is None:
        return ()
    return (
        Cause(
            subject="machine",
            text=f"{_measure(facts)}, address {facts.node_ip or 'none yet'}",
            entries=own_entry(node, known.node, "facts"),
        ),
    )


def _running(node: Node) -> tuple[Candidate, ...]:
    """Return those among whom a plan chooses; of a decided one that is not known any more: all."""
    if node.standing.plan is not None:
        return node.candidates()
    voters, present = node.genesis.state.voters, node.directory.present()
    return tuple(c for c in node.candidates() if c.node in voters and c.node in present)


def _left_out(node: Node, running: tuple[Candidate, ...], whose: NodeId) -> list[Cause]:
    """Return why some are not ranked at all, the node that was asked for first."""
    ranked = {candidate.node for candidate in running}
    reasons = {one.node: one.reason for one in node.genesis.state.excluded}
    left_out = [c for c in node.candidates() if c.node not in ranked]
    return [
        Cause(
            subject="not ranked",
            text=f"{c.shown}: {reasons.get(c.node) or _absence(node, c)}",
            entries=own_entry(node, c.node, "facts"),
        )
        for c in sorted(left_out, key=lambda c: (c.node != whose, c.shown, c.node))
    ]


def _absence(node: Node, candidate: Candidate) -> str:
    if candidate.wish in ("worker", "none"):
        return f"its p2p.role is {candidate.wish}"
    if not candidate.may_vote:
        return "it may not vote"
    return "it votes" if candidate.node in node.directory.present() else "it is not reached"


def _order(node: Node, ranking: Ranking, plan: ClusterPlan | None) -> Cause:
    seats = node.bounds.control_plane
    first, rest = ranking.eligible[:seats], ranking.eligible[seats:]
    text = f"those who may hold a seat, best first: {_ranked(first)}"
    text += f" | {_ranked(rest)}" if rest else ""
    text += " (by p2p.role, memory, cores, and last the node id)"
    if plan is None and len(first) < seats:
        text += f"; {seats} are needed"
    if plan is not None and {c.node for c in first} != {seat.node for seat in plan.seats}:
        text += "; the plan was made from those who were there then"
    return Cause(subject="ranking", text=text)


def _refused(node: Node, ranking: Ranking, whose: NodeId) -> list[Cause]:
    """Return why some may hold no seat, the node that was asked for first."""
    refused = sorted(ranking.refused, key=lambda one: (one.node != whose, one.node))
    return [
        Cause(
            subject="no seat",
            text=f"{node.directory.name(one.node)}: {one.reason}",
            entries=own_entry(node, one.node, "facts"),
        )
        for one in refused
    ]


def _plan(node: Node, known: Known, plan: ClusterPlan | None) -> tuple[Cause, ...]:
    if plan is None:
        text = "no plan is decided (CLAIM)"
        return (Cause(subject="plan", text=text, fulfilled=False),)
    record, entries = record_of(node, "claim")
    members = listed(node.directory.name(seat.node) for seat in plan.seats)
    nodes = [seat.node for seat in plan.seats]
    place = (
        f"seat {nodes.index(known.node) + 1} of {len(nodes)}"
        if known.node in nodes
        else "no seat, so a worker"
    )
    wish = known.facts.role_wish if known.facts is not None else "auto"
    if seat_in(plan, known.node, wish) == "none":
        place = "no seat, and it wishes no k3s"
    given_up = [
        reset.record for reset in node.standing.succession.chain if known.node in reset.record.dead
    ]
    if given_up:
        place += f" (its seat was given up by the reset of epoch {given_up[-1].epoch})"
    text = f"generation {plan.generation}: {place}; control plane {members}"
    return (Cause(subject="plan", text=text, fulfilled=True, entries=entries, record=record),)


def _changes(known: Known, plan: ClusterPlan | None, *, formed: bool) -> tuple[str, ...]:
    name = known.name
    if plan is None:
        return (
            "machines that rank otherwise are here when CLAIM is decided",
            f"p2p.role is set otherwise on {name}, and meshd started again there before that",
        )
    fixed = (
        "all machines start afresh with a new token: seats of a formed cluster do not move yet"
        if formed
        else f"generation {plan.generation} is given up before the cluster has formed"
    )
    if plan.seat_of(known.node) is not None:
        return (fixed,)
    wish = known.facts.role_wish if known.facts is not None else "auto"
    other = "set to something else than none" if wish == "none" else "set to none"
    effect = "it becomes a worker" if wish == "none" else "it then runs no k3s"
    return (fixed, f"p2p.role is {other} on {name}, and meshd started again there: {effect}")


def _measure(facts: Facts) -> str:
    cores = "1 core" if facts.cpus == 1 else f"{facts.cpus} cores"
    return f"{facts.memory_mib} MiB of memory, {cores}"


def _ranked(candidates: tuple[Candidate, ...]) -> str:
    return listed(f"{c.shown} ({c.memory_mib} MiB, {c.cpus} cores)" for c in candidates)
