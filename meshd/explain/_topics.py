"""Which explanation was asked for, and about which node."""

from __future__ import annotations

from collections.abc import Callable

from ledger import NodeId
from meshd.explain._genesis import explain_genesis
from meshd.explain._given import Given
from meshd.explain._join import explain_join
from meshd.explain._model import Explanation, Topic
from meshd.explain._role import explain_role
from meshd.explain._vip import explain_vip
from meshd.node import Node

_TOPICS: dict[Topic, Callable[[Node, Given, NodeId], Explanation]] = {
    "role": explain_role,
    "genesis": explain_genesis,
    "join": explain_join,
    "vip": explain_vip,
}


TOPICS: tuple[Topic, ...] = tuple(_TOPICS)


class NoSuchNode(ValueError):
    """A word names no node, or several; the text says which there are."""


def explain(node: Node, given: Given, topic: Topic, wanted: str | None) -> Explanation:
    """Return the explanation of `topic`.

    Args:
        node: as it stands between two events.
        given: what the shell knows besides.
        topic: what to explain.
        wanted: the node that is asked about: its name, its id, or a unique prefix of either, also
            of one that only knocked at the door; None for this node.

    Raises:
        NoSuchNode: `wanted` fits no node, or several.
    """
    whose = node.me if wanted is None else _named(node, given, wanted)
    return _TOPICS[topic](node, given, whose)


def _named(node: Node, given: Given, wanted: str) -> NodeId:
    names = {known.node: known.name for known in node.directory}
    names |= {peer: peer[-8:] for peer in given.strangers(names)}
    exact = [one for one, name in names.items() if wanted in (one, name)]
    found = exact or [
        one for one, name in names.items() if one.startswith(wanted) or name.startswith(wanted)
    ]
    if len(found) == 1:
        return found[0]
    many = "several nodes" if found else "no node"
    known = ", ".join(sorted(names[one] for one in found or names))
    raise NoSuchNode(
        f"{wanted!r} names {many}; {'choose one of' if found else 'known are'}: {known}"
    )
