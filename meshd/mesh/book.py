"""Whom to dial, where and when: addresses and back-off of every peer heard of. No I/O, no clock.

A peer is named by its node id, or, if only an address is known (a seed without `/p2p/…`), by
that address.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ledger import NodeId
from meshd.config.multiaddress import TcpAddress, parse_tcp_address

Way = Literal["beacon", "seed", "an earlier life", "the ledger"]
"""How addresses of a peer came here."""

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 30.0
JITTER = 0.25
ADDRESSES_MAX = 16
PEERS_MAX = 4096
GIVES_WAY_MAX = 3
FAILING = 2
"""So many dials failed in a row: others take the peer's place among the neighbours."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """What is known about reaching one peer."""

    addresses: list[TcpAddress] = field(default_factory=list)  # Newest first.
    node: NodeId | None  # None until an address without a name was dialled once.
    ways: list[Way] = field(default_factory=list)  # In the order of their first time.
    failure: str | None = None  # What came of the last dial, if it failed.
    failures: int = 0
    not_before: float = 0.0
    tried_at: float = float("-inf")
    dialling: bool = False
    gave_way: int = 0  # How often it was put off since the last dial.

    @property
    def failing(self) -> bool:
        return self.failures >= FAILING


class AddressBook:
    """The peers that this node could dial.

    Args:
        own: never dialled.
        rng: for the jitter.
    """

    def __init__(self, own: NodeId, rng: random.Random) -> None:
        self._own = own
        self._rng = rng
        self._entries: dict[str, Entry] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Entry:
        return self._entries[key]

    def __iter__(self) -> Iterator[Entry]:
        return iter([self._entries[key] for key in sorted(self._entries)])

    def learn(self, peer: NodeId, addresses: Iterable[TcpAddress], way: Way) -> bool:
        """Note addresses, newest first; True if one of them is new."""
        if peer == self._own:
            return False
        entry = self._entries.get(peer)
        if entry is None:
            if len(self._entries) >= PEERS_MAX:
                return False
            entry = self._entries[peer] = Entry(node=peer)
        if way not in entry.ways:
            entry.ways.append(way)
        given = list(addresses)
        new = [address for address in given if address not in entry.addresses]
        kept = [address for address in entry.addresses if address not in given]
        entry.addresses = (given + kept)[:ADDRESSES_MAX]
        return bool(new)

    def learn_seed(self, text: str) -> None:
        """Note a seed's multiaddr, with or without a name; what is none was refused before."""
        address = _parse(text)
        if address is None:
            return
        if address.node is not None:
            self.learn(address.node, [_without_name(address)], "seed")
            return
        entry = Entry(node=None, addresses=[address], ways=["seed"])
        self._entries.setdefault(str(address), entry)

    def forget(self, key: str) -> None:
        """Dial this one never again: it turned out to be this node itself."""
        self._entries.pop(key, None)

    def hurry(self, peer: NodeId, now: float, *, delay_s: float = 0.0) -> None:
        """The peer was just heard of, so it lives: dial it soon, whatever the back-off says."""
        entry = self._entries.get(peer)
        if entry is not None and not entry.dialling and now >= entry.tried_at + BACKOFF_FIRST_S:
            entry.not_before = now + delay_s

    def peers(self) -> list[NodeId]:
        """Return the names of all known peers, sorted."""
        return sorted({entry.node for entry in self._entries.values() if entry.node is not None})

    def failing(self, peer: NodeId) -> bool:
        """Whether the last dials to `peer` failed."""
        return peer in self._entries and self._entries[peer].failing

    def due(self, wanted: Sequence[str], now: float) -> list[str]:
        """Return which of `wanted` to dial now."""
        return [
            key
            for key in wanted
            if (entry := self._entries.get(key)) is not None
            and entry.addresses
            and not entry.dialling
            and entry.not_before <= now
        ]

    def next_due(self, wanted: Sequence[str]) -> float:
        """Return when the first of `wanted` may be dialled; infinity if none."""
        times = [
            entry.not_before
            for key in wanted
            if (entry := self._entries.get(key)) and entry.addresses and not entry.dialling
        ]
        return min(times, default=float("inf"))

    def unnamed(self) -> list[str]:
        """Return the keys of seeds known by address only."""
        return [key for key in self._entries if key.startswith("/")]

    def give_way(self, key: str, until: float) -> bool:
        """Put a dial off; False if that was done often enough."""
        entry = self._entries[key]
        if entry.gave_way >= GIVES_WAY_MAX:
            return False
        entry.gave_way += 1
        entry.not_before = until
        return True

    def began(self, key: str, now: float) -> None:
        """A dial is under way."""
        self._entries[key].dialling = True
        self._entries[key].gave_way = 0
        self._entries[key].tried_at = now

    def failed(self, key: str, now: float, why: str) -> None:
        """A dial failed: wait 1 s, twice as long each time, at most 30 s."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.dialling = False
        pause = min(BACKOFF_FIRST_S * 2.0 ** min(entry.failures, 10), BACKOFF_MAX_S)
        entry.failures += 1
        entry.failure = why
        entry.not_before = now + pause * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def reached(self, key: str, peer: NodeId) -> None:
        """A dial succeeded and `peer` answered."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.dialling = False
        entry.failures = 0
        entry.failure = None
        entry.node = peer
        entry.not_before = 0.0


def parse_addresses(texts: Sequence[str]) -> list[TcpAddress]:
    """Return those of the multiaddrs that can be dialled, without names."""
    parsed = [_parse(text) for text in texts]
    return [_without_name(address) for address in parsed if address is not None]


def _parse(text: str) -> TcpAddress | None:
    try:
        return parse_tcp_address(text)
    except ValueError:
        return None


def _without_name(address: TcpAddress) -> TcpAddress:
    return TcpAddress(kind=address.kind, host=address.host, port=address.port)
