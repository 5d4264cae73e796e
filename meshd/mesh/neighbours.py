"""Which peers a node keeps links to. Up to 8: all of them. Beyond: a ring by node id, and chance.

The ring alone connects every node that is reachable; six links in all keep the graph together
when many are lost at once, and a message crosses a thousand nodes in four hops (Bollobás, Random
Graphs, chapter 10: a random graph of constant degree has logarithmic diameter).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

from ledger import NodeId

ALL_UP_TO = 8
NEIGHBOURS_MIN = 6


def ring_of(own: NodeId, peers: Collection[NodeId]) -> set[NodeId]:
    """Return the next and the previous of `peers` by node id, around the end if need be."""
    others = sorted(peer for peer in peers if peer != own)
    if not others:
        return set()
    after = [peer for peer in others if peer > own]
    before = [peer for peer in others if peer < own]
    return {after[0] if after else others[0], before[-1] if before else others[-1]}


def wanted_peers(
    own: NodeId,
    *,
    known: Sequence[NodeId],
    failing: AbstractSet[NodeId],
    held: AbstractSet[NodeId],
    rng: random.Random,
) -> list[NodeId]:
    """Return whom to dial, as far as neighbours go.

    Args:
        own: this node.
        known: all peers heard of, sorted.
        failing: those of them that lately could not be reached; the book spaces out new tries.
        held: peers that are connected or being dialled.
        rng: chooses the neighbours that the ring does not give.
    """
    missing = [peer for peer in known if peer not in held]
    if len(known) <= ALL_UP_TO:
        return missing
    hopeful = [peer for peer in known if peer not in failing or peer in held]
    chosen = ring_of(own, hopeful) - held
    spare = [peer for peer in missing if peer not in failing and peer not in chosen]
    lacking = max(0, NEIGHBOURS_MIN - len(held) - len(chosen))
    chosen.update(rng.sample(spare, min(lacking, len(spare))))
    return sorted(chosen) + [peer for peer in missing if peer in failing]
