"""Who votes. Every rule here can only take a vote away, so a wrong view costs time, never safety.

The safety argument needs fewer than 2 x quorum identities that ever vote and that each voter keeps
its memory until DONE (docs/genesis.md); these rules notice when either no longer holds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from ledger import NodeId
from roles._election import Refusal, largest_settings_group
from roles._messages import VOTES_MAX
from roles._settings import difference
from roles._types import Bounds, Candidate, in_words

HaltReason = Literal["too-many-voters", "settings-mismatch", "equivocation", "lost-memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Why this node does not vote, with its stable code and what would mend it."""

    reason: HaltReason
    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Electorate:
    """The voters one node recognises, itself included if it votes."""

    voters: tuple[NodeId, ...]  # Sorted; known, present or not.
    excluded: tuple[Refusal, ...]  # Known and willing, but not counted.
    halt: Halt | None  # Why this node itself must not vote.
    quorum: int  # How many votes decide; in an open network as far as this node knows.
    wiped: tuple[NodeId, ...] = ()  # Not here, while their machines are, under other identities.


def electorate(
    candidates: Sequence[Candidate],
    *,
    me: NodeId,
    bounds: Bounds,
    has_voted: bool,
    present: Collection[NodeId],
    proven_faulty: Collection[NodeId] = (),
    settings_matter: bool = True,
    quorum_known: int = 0,
) -> Electorate:
    """Return who votes as far as this node can tell.

    Args:
        candidates: everyone ever known, this node included, in any order.
        me: this node.
        bounds: this node's bounds.
        has_voted: whether this node's journal holds a vote.
        present: the peers connected now; only they count for the settings most have.
        proven_faulty: those who signed two values for one ballot.
        settings_matter: False once CLAIM is decided; the plan then says which settings count.
        quorum_known: in an open network, the largest quorum that this node ever knew of.
    """
    willing = sorted((c for c in candidates if is_willing(c)), key=lambda c: c.node)
    twins = _twins_of(willing)
    here = [c for c in willing if c.node == me or c.node in present]
    same = [c for c in here if c.bounds.limits == bounds.limits]
    settings = largest_settings_group(same) if settings_matter else None
    usual = next((c for c in same if c.settings_hash == settings), None)
    quorum = _quorum_among(willing, bounds, known=quorum_known)
    halts = (
        _equivocated(me, proven_faulty),
        _too_large(quorum),
        _outnumbered(willing, bounds),
        _too_many(willing, bounds),
        None if has_voted else _lost_memory(twins.get(me, [])),
        _odd_settings(me, same, usual),
    )
    halt = next((halt for halt in halts if halt is not None), None)
    reasons = {
        c.node: _exclusion(c, twins[c.node], bounds=bounds, faulty=proven_faulty, usual=usual)
        for c in willing
        if c.node != me
    }
    if any(c.node == me for c in willing):
        # This node knows for itself whether it remembers its votes.
        reasons[me] = halt.message if halt is not None else None
    return Electorate(
        voters=tuple(node for node, reason in sorted(reasons.items()) if reason is None),
        excluded=tuple(
            Refusal(node, reason) for node, reason in sorted(reasons.items()) if reason is not None
        ),
        halt=halt,
        wiped=tuple(
            c.node for c in willing if c not in here and any(twin in here for twin in twins[c.node])
        ),
        quorum=quorum,
    )


def _quorum_among(willing: Sequence[Candidate], bounds: Bounds, *, known: int) -> int:
    """Return how many votes decide: as the token says, or a majority of all machines known."""
    if not bounds.is_open:
        return bounds.quorum
    found = machines([c for c in willing if c.bounds.limits == bounds.limits])
    return max(bounds.quorum, known, len(found) // 2 + 1)


def is_willing(candidate: Candidate) -> bool:
    """Whether its token and its wish let this machine vote."""
    return candidate.may_vote and candidate.wish in ("auto", "control-plane")


def machines(willing: Sequence[Candidate]) -> list[list[Candidate]]:
    """Group identities by machine: two that share a hardware identifier are one machine."""
    group_of: dict[str, list[Candidate]] = {}  # By hardware identifier.
    groups: dict[int, list[Candidate]] = {}
    for candidate in sorted(willing, key=lambda c: c.node):
        group = [candidate]
        for mark in candidate.fingerprint:
            other = group_of.get(mark)
            if other is not None and other is not group:
                groups.pop(id(other), None)
                group[:0] = other
                group_of.update({m: group for c in other for m in c.fingerprint})
            group_of[mark] = group
        groups[id(group)] = group
    return list(groups.values())


def _twins_of(willing: Sequence[Candidate]) -> dict[NodeId, list[Candidate]]:
    """Return, for each identity, the others of the same machine."""
    return {
        candidate.node: [other for other in group if other is not candidate]
        for group in machines(willing)
        for candidate in group
    }


def _exclusion(
    candidate: Candidate,
    twins: Sequence[Candidate],
    *,
    bounds: Bounds,
    faulty: Collection[NodeId],
    usual: Candidate | None,
) -> str | None:
    """Return why this node does not count the candidate's votes, or None."""
    if candidate.node in faulty:
        return "it signed two values for one ballot"
    if candidate.bounds.limits != bounds.limits:
        theirs, ours = in_words(candidate.bounds.limits), in_words(bounds.limits)
        return f"it is set up for {theirs}, not {ours}"
    if twins:
        # Which of the two still remembers its votes cannot be seen from here, so neither counts.
        names = ", ".join(twin.shown for twin in twins)
        return f"the same machine is known under another identity ({names})"
    if usual is not None and candidate.settings_hash != usual.settings_hash:
        return f"its settings differ from those most have: {difference(candidate, usual)}"
    return None


def _equivocated(me: NodeId, faulty: Collection[NodeId]) -> Halt | None:
    if me not in faulty:
        return None
    return Halt(
        reason="equivocation",
        code="MESH-4006",
        message="this node's identity signed two values for one ballot: its key is in use twice",
        fix="stop the other machine with this disk or key, then give both new identities",
    )


def _too_large(quorum: int) -> Halt | None:
    if quorum <= VOTES_MAX:
        return None
    return Halt(
        reason="settings-mismatch",
        code="MESH-4008",
        message=f"a decision of {quorum} voters does not fit into a ledger entry",
        fix=f"make a token for {2 * VOTES_MAX - 1} machines at most, and give the others a join "
        "token or p2p.role: worker",
    )


def _outnumbered(willing: Sequence[Candidate], bounds: Bounds) -> Halt | None:
    """Of several groups with different bounds only one that is larger than every other goes on."""
    groups: dict[tuple[int, int, int], list[Candidate]] = {}
    for candidate in willing:
        groups.setdefault(candidate.bounds.limits, []).append(candidate)
    ours = len(groups.pop(bounds.limits, []))
    rivals = [group for _, group in sorted(groups.items()) if len(group) >= max(ours, 1)]
    if not rivals:
        return None
    others = [candidate.shown for candidate in rivals[0]]
    return Halt(
        reason="settings-mismatch",
        code="MESH-4002",
        message=f"this node is set up for {in_words(bounds.limits)}; {', '.join(others)} for "
        f"{in_words(rivals[0][0].bounds.limits)}: they never vote together",
        fix="give all machines the same token and the same p2p.auto.ha, p2p.minimum_nodes and "
        "p2p.meshd.nodes_max",
    )


def _too_many(willing: Sequence[Candidate], bounds: Bounds) -> Halt | None:
    found = machines([c for c in willing if c.bounds.limits == bounds.limits])
    if bounds.is_open or len(found) < 2 * bounds.quorum:
        return None
    names = ", ".join(sorted(group[0].shown for group in found))
    return Halt(
        reason="too-many-voters",
        code="MESH-4001",
        message=f"{len(found)} machines may vote ({names}), and a quorum of {bounds.quorum} is "
        f"safe among {2 * bounds.quorum - 1} at most",
        fix=f"make a token for more machines (meshd token new --nodes {len(found)}), or give "
        "the additional ones a join token or p2p.role: worker",
    )


def _lost_memory(twins: Sequence[Candidate]) -> Halt | None:
    if not twins:
        return None
    names = ", ".join(f"{twin.shown} {twin.node[-8:]}" for twin in twins)
    return Halt(
        reason="lost-memory",
        code="MESH-4004",
        message=f"this machine was known before as {names}, and may have voted; it no longer "
        "knows how",
        fix="nothing is needed if enough others vote; otherwise put its old disk back, or start "
        "all machines afresh with a new token",
    )


def _odd_settings(me: NodeId, same: Sequence[Candidate], usual: Candidate | None) -> Halt | None:
    myself = next((c for c in same if c.node == me), None)
    if myself is None or usual is None or myself.settings_hash == usual.settings_hash:
        return None
    agree = ", ".join(sorted(c.shown for c in same if c.settings_hash == usual.settings_hash))
    return Halt(
        reason="settings-mismatch",
        code="MESH-4003",
        message=f"this node's settings differ from those of {agree}: {difference(myself, usual)}",
        fix="make k3s.args and kubevip.eip equal on all machines that may become servers (compare "
        "with `meshd config show` there)",
    )
