"""Rank the candidates and draw up the plan of a generation. Pure, total, order-independent.

This selects, it does not agree: two nodes with different views draw different plans, and the CLAIM
slot of the decision log (`roles._genesis`) decides which one counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ledger import NodeId
from roles._types import Candidate, ClusterPlan, Seat

SERVER_MEMORY_MIN_MIB = 1843
"""1.8 GiB: what machines sold with 2 GiB report, and what k3s asks of a server (docs.k3s.io)."""

NOBODY: Mapping[NodeId, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node gets no seat."""

    node: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """No plan can be drawn up: what is missing, and who was refused."""

    reason: str
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranking:
    """Who may hold a seat, best first, and why the others may not."""

    eligible: tuple[Candidate, ...]
    refused: tuple[Refusal, ...]

    def explain(self, node: NodeId, *, control_plane: int) -> str:
        """Return in words what `node` becomes and why."""
        for refusal in self.refused:
            if refusal.node == node:
                return f"worker: {refusal.reason}"
        for place, candidate in enumerate(self.eligible, start=1):
            if candidate.node == node:
                return _place(candidate, place, control_plane)
        return "not a candidate: nothing is known of it"


def rank(
    candidates: Sequence[Candidate],
    *,
    control_plane: int,
    vip: str | None = None,
    failed_before: Mapping[NodeId, int] = NOBODY,
    had_turn: Collection[NodeId] = (),
) -> Ranking:
    """Order those who may hold a seat.

    Wish first (control plane before automatic), then memory, cores and node id; those whose clock
    is wrong come after all others, because their k3s waits, then members of abandoned plans that
    failed, `failed_before` (the lower the number, the better), and those that could have proposed
    this plan and did not, `had_turn`, last of all. Cluster-critical settings must be equal on all
    servers, so only the largest group of equal settings is eligible; of two equally large ones,
    that of the best-ranked candidate. Servers are told apart by their addresses, so of several with
    the same one none is eligible, and none at `vip`, the virtual one.
    """
    refused = []
    fit = []
    for candidate in sorted(candidates, key=lambda c: c.node):
        reason = _unfit(candidate, control_plane, vip)
        if reason is None:
            fit.append(candidate)
        else:
            refused.append(Refusal(candidate.node, reason))
    refused += _sharing_addresses(fit)
    alone = [c for c in fit if all(refusal.node != c.node for refusal in refused)]
    ordered = sorted(alone, key=lambda c: _merit(c, failed_before, had_turn))
    chosen = largest_settings_group(ordered)
    for candidate in ordered:
        if candidate.settings_hash != chosen:
            size = sum(1 for other in ordered if other.settings_hash == chosen)
            reason = (
                f"its cluster-critical k3s settings ({candidate.settings_hash[:8]}) differ from "
                f"those of the {size} that agree ({(chosen or '')[:8]})"
            )
            refused.append(Refusal(candidate.node, reason))
    return Ranking(
        eligible=tuple(c for c in ordered if c.settings_hash == chosen),
        refused=tuple(sorted(refused, key=lambda refusal: refusal.node)),
    )


def elect(
    candidates: Sequence[Candidate],
    *,
    control_plane: int,
    generation: int,
    cluster_id: str,
    network: Literal["lan", "overlay"],
    vip: str | None,
    failed_before: Mapping[NodeId, int] = NOBODY,
    had_turn: Collection[NodeId] = (),
    away: Sequence[Candidate] = (),
) -> ClusterPlan | NotYet:
    """Return the plan these candidates make, or what it lacks.

    Args:
        candidates: those present, in any order; all of the same bounds.
        control_plane: how many seats; all of them must be filled.
        generation: from 1.
        cluster_id: 32 hex digits, random, new for each plan.
        network: how the members reach one another.
        vip: the virtual address, or None.
        failed_before: members of abandoned plans that failed; the lower the number, the better.
        away: voters that are not here; like those present, they let the plan have a lease only if
            their meshd can keep one.
        had_turn: those that rank last of all, because they did not propose in time.
    """
    ranking = rank(
        candidates,
        control_plane=control_plane,
        vip=vip,
        failed_before=failed_before,
        had_turn=had_turn,
    )
    if len(ranking.eligible) < control_plane:
        return NotYet(_shortage(candidates, ranking, control_plane), ranking.refused)
    members = ranking.eligible[:control_plane]
    first = members[0]
    return ClusterPlan(
        cluster_id=cluster_id,
        generation=generation,
        initialiser=first.node,
        seats=tuple(Seat(node=c.node, node_name=c.node_name, node_ip=c.node_ip) for c in members),
        network=network,
        settings_hash=first.settings_hash,
        ca_hash=first.ca_hash,
        token_commitment=first.token_commitment,
        vip=vip,
        vip_interface=_shared_interface(members),
        leased=all(c.fuse for c in (*candidates, *away)),
    )


def _shared_interface(members: Sequence[Candidate]) -> str:
    """Return the interface that would carry the VIP on each of them, or nothing if they differ."""
    names = {member.vip_interface for member in members}
    return names.pop() if len(names) == 1 else ""


def largest_settings_group(ranked: Sequence[Candidate]) -> str | None:
    """Return the settings hash most of `ranked` have; of equals, that of the best-ranked one."""
    sizes: dict[str, int] = {}
    for candidate in ranked:
        sizes[candidate.settings_hash] = sizes.get(candidate.settings_hash, 0) + 1
    # `max` returns the first of equals, and a dict keeps the order of ranking.
    return max(sizes, key=lambda settings_hash: sizes[settings_hash], default=None)


def _sharing_addresses(fit: Sequence[Candidate]) -> list[Refusal]:
    """Refuse all who share an address: which of them has it by right cannot be seen from here."""
    at: dict[str, list[Candidate]] = {}
    for candidate in fit:
        at.setdefault(candidate.node_ip, []).append(candidate)
    refused = []
    for candidate in fit:
        others = sorted(c.shown for c in at[candidate.node_ip] if c.node != candidate.node)
        if others:
            reason = f"its address {candidate.node_ip} is also that of {', '.join(others)}"
            refused.append(Refusal(candidate.node, reason))
    return refused


def _unfit(candidate: Candidate, control_plane: int, vip: str | None) -> str | None:
    """Return why the candidate can hold no seat whatever the others are, or None."""
    seats = candidate.bounds.control_plane
    small = candidate.wish == "auto" and candidate.memory_mib < SERVER_MEMORY_MIN_MIB
    grounds = (
        (candidate.wish in ("worker", "none"), f"its role is set to {candidate.wish}"),
        (not candidate.node_ip, "it has no usable address"),
        (candidate.blocked is not None, candidate.blocked or ""),
        (candidate.node_ip == vip, f"its address is the virtual one, {vip}"),
        (not candidate.may_vote, "its token does not allow it to vote"),
        (
            seats != control_plane,
            f"it is set up for a control plane of {seats}, not {control_plane}",
        ),
        (not candidate.direct, "the others reach it through a relay only"),
        (
            small,
            f"it has {candidate.memory_mib} MiB of memory, a server needs {SERVER_MEMORY_MIN_MIB}",
        ),
    )
    return next((reason for applies, reason in grounds if applies), None)


def _merit(
    candidate: Candidate, failed_before: Mapping[NodeId, int], had_turn: Collection[NodeId]
) -> tuple[bool, int, bool, bool, int, int, NodeId]:
    """Sort key, best first."""
    return (
        candidate.node in had_turn,
        failed_before.get(candidate.node, 0),
        candidate.clock_is_wrong,
        candidate.wish != "control-plane",
        -candidate.memory_mib,
        -candidate.cpus,
        candidate.node,
    )


def _place(candidate: Candidate, place: int, control_plane: int) -> str:
    clock = ", its clock is wrong" if candidate.clock_is_wrong else ""
    measure = f"{candidate.memory_mib} MiB, {candidate.cpus} cores{clock}"
    if place == 1:
        return f"control plane, initialiser: ranked first ({measure})"
    if place <= control_plane:
        return f"control plane: ranked {place} of {control_plane} seats ({measure})"
    return f"worker: ranked {place}, and there are {control_plane} seats ({measure})"


def _shortage(candidates: Sequence[Candidate], ranking: Ranking, control_plane: int) -> str:
    """Say how many servers are there, and why those present do not do."""
    names = {candidate.node: candidate.shown for candidate in candidates}
    there = ", ".join(candidate.shown for candidate in ranking.eligible)
    why = "".join(f"; {names[refusal.node]}: {refusal.reason}" for refusal in ranking.refused)
    found = f"{len(ranking.eligible)} of {control_plane} servers found"
    return f"{found} ({there}){why}" if there else f"{found}{why}"
