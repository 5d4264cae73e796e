"""What a node may never do, whatever happened to it: judged from what left the nodes.

The laws are Paxos' own (Lamport, *Paxos Made Simple*, 2001) and those of genesis about k3s; they
know nothing of disks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from ledger import NodeId, node_id_of
from ledger._messages import Bulk, Push, decode_frame
from meshd.events import Channel
from roles._messages import (
    Accept,
    Accepted,
    Authentic,
    Ballot,
    Lease,
    Prepare,
    Promise,
    Released,
    read_frame,
)
from tests.store.record import Line, Loaded, Ordered, Shown

Place = tuple[int, str]
"""Generation and slot."""


_Message = Prepare | Promise | Accept | Accepted


class Broken(AssertionError):
    """A law was broken."""


@dataclass(slots=True)
class Word:
    """What one node has given its word for, in one slot."""

    promised: Ballot | None = None
    accepted: dict[Ballot, bytes] = field(default_factory=dict)
    proposed: dict[Ballot, bytes] = field(default_factory=dict)
    asked: set[Ballot] = field(default_factory=set)


def word_of(lines: Iterable[Line], node: NodeId) -> dict[Place, Word]:
    """Hold everything that the lines show of all nodes against the laws; return the node's word.

    Raises:
        Broken: which law, and in what.
    """
    words: dict[tuple[NodeId, Place], Word] = defaultdict(Word)
    chosen: dict[tuple[Place, Ballot], bytes] = {}
    began: dict[int | None, str | None] = {}
    for line in lines:
        message = _message_in(line)
        if message is not None:
            place = message.generation, message.slot
            _judge(words[message.sender, place], message)
            if isinstance(message, Accepted):
                value = chosen.setdefault((place, message.ballot), message.value_hash)
                if value != message.value_hash:
                    raise Broken(f"two values voted for in one ballot of {place}")
        if isinstance(line, Ordered) and line.seat == "initialiser":
            cluster_id = began.setdefault(line.generation, line.cluster_id)
            if cluster_id != line.cluster_id:
                raise Broken(f"two clusters begun in generation {line.generation}")
    return {place: word for (sender, place), word in words.items() if sender == node}


def _message_in(line: Line) -> _Message | None:
    if not isinstance(line, Shown) or line.channel is not Channel.GENESIS:
        return None
    found = read_frame(line.frame)
    message = found.message if isinstance(found, Authentic) else None
    return message if isinstance(message, Prepare | Promise | Accept | Accepted) else None


def _judge(word: Word, message: _Message) -> None:
    match message:
        case Promise():
            highest = max(word.accepted, default=None)
            told = message.accepted[0] if message.accepted is not None else None
            if (
                highest is not None
                and highest <= message.ballot
                and (told is None or told < highest)
            ):
                raise Broken(f"a promise for {message.ballot} that hides a vote for {highest}")
            word.promised = max(word.promised or message.ballot, message.ballot)
        case Accepted():
            if word.promised is not None and message.ballot < word.promised:
                raise Broken(f"a vote for {message.ballot} after a promise for {word.promised}")
            if word.accepted.setdefault(message.ballot, message.value_hash) != message.value_hash:
                raise Broken(f"two votes in {message.ballot}")
        case Accept():
            if word.proposed.setdefault(message.ballot, message.value_hash) != message.value_hash:
                raise Broken(f"two proposals in {message.ballot}")
        case Prepare():
            word.asked.add(message.ballot)


def forgotten(word: dict[Place, Word], votes: Sequence[tuple[str, bytes]]) -> list[str]:
    """Return what a node gave its word for and its journal does not hold, one line for each."""
    rows = {key: read_frame(data) for key, data in votes if key.split("/")[0] in _OWN}
    missing: list[str] = []
    for (generation, slot), given in sorted(word.items()):
        promise = _ballot(rows.get(f"promise/{generation}/{slot}"))
        accepted = rows.get(f"accept/{generation}/{slot}")
        own = _ballot(rows.get(f"ballot/{generation}"))
        floor = max((b for b in (promise, _ballot(accepted)) if b is not None), default=None)
        if given.promised is not None and (floor is None or floor < given.promised):
            missing.append(f"promise {given.promised} in {generation}/{slot}")
        for ballot, value in {**given.accepted, **given.proposed}.items():
            kept = _ballot(accepted)
            if kept is None or kept < ballot:
                missing.append(f"vote {ballot} in {generation}/{slot}")
            elif kept == ballot and _value(accepted) != value:
                missing.append(f"vote {ballot} in {generation}/{slot}, for another value")
        missing += [
            f"ballot {ballot} in {generation}"
            for ballot in given.asked | set(given.proposed)
            if own is None or own.round < ballot.round
        ]
    return missing


_OWN = frozenset({"promise", "accept", "ballot"})


def _ballot(row: object) -> Ballot | None:
    message = row.message if isinstance(row, Authentic) else None
    return message.ballot if isinstance(message, Prepare | Promise | Accepted) else None


def _value(row: object) -> bytes | None:
    if not isinstance(row, Authentic) or not isinstance(row.message, Accepted):
        return None
    return row.message.value_hash


def forgotten_orders(lines: Sequence[Line], votes: Sequence[tuple[str, bytes]]) -> list[str]:
    """Return what k3s was ordered to begin, or given up, without a trace in the journal."""
    keys = {key for key, _ in votes}
    ended = [
        f"giving generation {generation} up"
        for generation in sorted(_given_up(lines))
        if f"gave-up/{generation}" not in keys
    ]
    return ended + [
        f"the order to begin {line.cluster_id}"
        for line in lines
        if isinstance(line, Ordered)
        and line.author == 0
        and line.seat == "initialiser"
        and not {f"intent/{line.generation}", f"decided/{line.generation}/started"} <= keys
    ]


def _given_up(lines: Sequence[Line]) -> set[int]:
    """Return the generations that the real node told others it gave up as their initialiser."""
    found = set()
    for line in lines:
        if isinstance(line, Shown) and line.author == 0 and line.channel is Channel.GENESIS:
            frame = read_frame(line.frame)
            message = frame.message if isinstance(frame, Authentic) else None
            if isinstance(message, Released) or (
                isinstance(message, Lease) and message.remaining_ms == 0
            ):
                found.add(message.generation)
    return found


def lost_entries(lines: Sequence[Line], loaded: Loaded) -> list[str]:
    """Return the node's own ledger entries that left it and are neither kept nor replaced."""
    fields = map(_fields, loaded.entries)
    held = {key: (seq, entry) for author, key, seq, entry in fields if author == loaded.node}
    missing = []
    for line in lines:
        if isinstance(line, Shown) and line.author == 0 and line.channel is Channel.LEDGER:
            message = decode_frame(line.frame)
            shown = message.entries if isinstance(message, Bulk | Push) else ()
            for author, key, seq, entry in map(_fields, shown):
                kept = held.get(key, (0, b""))
                if author == loaded.node and kept[0] < seq:
                    missing.append(f"entry {key}, number {seq}")
                if author == loaded.node and kept[0] == seq and kept[1] != entry:
                    missing.append(f"entry {key}, number {seq}, has another value")
    return missing


def _fields(entry: bytes) -> tuple[NodeId, str, int, bytes]:
    _, author, key, seq, *_ = msgspec.msgpack.decode(entry)
    return node_id_of(author), key, seq, entry
