"""Effects of one event, put into their order: everything durable first, in one transaction.

Persisting earlier than asked is always safe: to the outside it looks as if the frames that come
after it were lost.
"""

from __future__ import annotations

from collections.abc import Iterable

import ledger
from ledger import Entry, Moment, NodeId, Replica
from meshd.events import Connected, Disconnected, Effect, Event, Persist


def durable_first(effects: Iterable[Effect]) -> list[Effect]:
    """Return the effects with all of `Persist` merged into one that comes first.

    Of two values for one register or journal row the later one counts.
    """
    entries: dict[tuple[NodeId, str], Entry] = {}
    votes: dict[str, bytes] = {}
    rest: list[Effect] = []
    for effect in effects:
        if isinstance(effect, Persist):
            entries.update(((entry.author, entry.key), entry) for entry in effect.entries)
            votes.update(effect.votes)
        else:
            rest.append(effect)
    if not entries and not votes:
        return rest
    persist = Persist(entries=tuple(entries.values()), votes=tuple(votes.items()))
    return [persist, *rest]


def link_effects(replica: Replica, event: Event, now: Moment) -> list[ledger.Effect]:
    """Tell the replica of a neighbour that came or went."""
    match event:
        case Connected(peer):
            return replica.connected(peer, now)
        case Disconnected(peer):
            replica.disconnected(peer)
            return []
        case _:
            return []
