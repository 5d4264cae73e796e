"""Which peers a node keeps links to. Up to 7: all of them. Beyond: its neighbours on several rings.

Each ring has all nodes in an order of its own that everybody computes alike, so two nodes that know
the same peers choose one another and nobody has to ask. One ring connects whoever can be reached;
three together are a random graph of constant degree, through which a message crosses a thousand
nodes in few hops and which stays together when many nodes are lost at once (Law and Siu,
Distributed Construction of Random Expander Networks, 2003; Suresh et al., Stable and Consistent
Membership at Scale with Rapid, 2018, section 4.1).
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Set as AbstractSet
from functools import lru_cache
from hashlib import blake2b

from ledger import NodeId

ALL_UP_TO = 7
NEIGHBOURS_MIN = 6
RINGS_MAX = 8
"""Rings are added until they give 6 neighbours; small networks have the same pair on several."""


@lru_cache(maxsize=2**16)
def _position(ring: int, node: NodeId) -> bytes:
    return blake2b(node.encode(), digest_size=16, salt=ring.to_bytes(2, "big")).digest()


def ring_of(own: NodeId, peers: Collection[NodeId], ring: int = 0) -> set[NodeId]:
    """Return the next and the previous of `peers` on a ring, around the end if need be."""
    others = sorted((_position(ring, peer), peer) for peer in peers if peer != own)
    if not others:
        return set()
    here = (_position(ring, own), own)
    after = [peer for position, peer in others if (position, peer) > here]
    before = [peer for position, peer in others if (position, peer) < here]
    return {after[0] if after else others[0][1], before[-1] if before else others[-1][1]}


def neighbours_of(own: NodeId, peers: Collection[NodeId]) -> set[NodeId]:
    """Return whom of `peers` this node should be linked to; 6 or 7 if there are more than 7."""
    others = {peer for peer in peers if peer != own}
    if len(others) <= ALL_UP_TO:
        return others
    chosen: set[NodeId] = set()
    for ring in range(RINGS_MAX):
        chosen |= ring_of(own, others, ring)
        if len(chosen) >= NEIGHBOURS_MIN:
            break
    return chosen


def wanted_peers(
    own: NodeId, *, known: Collection[NodeId], failing: AbstractSet[NodeId]
) -> list[NodeId]:
    """Return whom to be linked to, sorted; the book spaces out the tries.

    Args:
        own: this node.
        known: all peers heard of.
        failing: those of them that lately could not be reached and are not linked: others take
            their places, and they are tried again all the same.
    """
    hopeful = [peer for peer in known if peer not in failing]
    back_again = neighbours_of(own, known) & failing
    return sorted(neighbours_of(own, hopeful) | back_again)
