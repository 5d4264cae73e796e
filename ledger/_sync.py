"""Anti-entropy: with whom roots are exchanged when, what is asked for, and how fast it is served.

Entries are only ever pulled, by one exchange at a time: a newcomer with seven neighbours fetches
the ledger once. No peer is trusted to answer: whatever does not come is asked for elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import assert_never

from ledger._effects import Transmit
from ledger._entry import encode_entry
from ledger._identity import Instant, NodeId
from ledger._limits import (
    FRAME_GOAL_BYTES,
    RECEIVED_BURST_BYTES,
    RECEIVED_BYTES_PER_S,
    SENT_BURST_BYTES,
    SENT_BYTES_PER_S,
    TokenBucket,
)
from ledger._messages import (
    SALT_BYTES,
    Bulk,
    Digests,
    Message,
    More,
    Pull,
    Push,
    Root,
    encode_frame,
)
from ledger._reconcile import answer_of, compare, digests_of, pull_of
from ledger._registers import Register, Registers

SYNC_INTERVAL_S = 15.0
SYNC_JITTER = 0.25

_GREETING_S = 2.0  # Longer than a round trip, shorter than the patience of people.
_PULL_QUIET_MAX_S = 3.0
_PULL_MAX_S = 60.0
_RETRY_S = 1.0
_RETRY_MAX_S = 15.0
_SHUNNED_S = 600.0


class _Link:
    """One neighbour."""

    __slots__ = (
        "caught_up",
        "greeted_until",
        "outbox",
        "pending",
        "received",
        "retry_s",
        "sent",
        "stalled",
    )

    def __init__(self, now: Instant) -> None:
        self.caught_up = False  # Whether all it held at some time of this connection is here.
        self.greeted_until: Instant | None = None  # Until then its answer to our root is awaited.
        self.pending: Digests | None = None  # To be looked at when no pull is under way.
        self.outbox: dict[Register, None] = {}  # What it pulled and was not sent yet, in order.
        self.stalled: Instant | None = None  # When the outbox may go on: it asked for too much.
        self.retry_s = _RETRY_S
        self.sent = TokenBucket(SENT_BYTES_PER_S, SENT_BURST_BYTES, now)
        self.received = TokenBucket(RECEIVED_BYTES_PER_S, RECEIVED_BURST_BYTES, now)


@dataclass(slots=True)
class _Pulling:
    """The exchange under way."""

    peer: NodeId
    since: Instant
    expires: Instant
    complete: bool  # Whether all that differs was asked for; if not, there is another round.


class Sync:
    """The neighbours, and the state of every exchange with them."""

    def __init__(self, node: NodeId, registers: Registers, rng: Random, now: Instant) -> None:
        self._node = node
        self._registers = registers
        self._rng = rng
        self._links: dict[NodeId, _Link] = {}
        self._pulling: _Pulling | None = None
        self._owed: dict[NodeId, Instant] = {}  # When to send a root to whom, besides the rounds.
        self._shunned: dict[NodeId, Instant] = {}
        self._round_at = self._next_round(now)
        self._quiet_since = now

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The neighbours, sorted."""
        return tuple(sorted(self._links))

    @property
    def caught_up(self) -> tuple[NodeId, ...]:
        """The neighbours of which this replica has held everything since they connected, sorted."""
        return tuple(sorted(peer for peer, link in self._links.items() if link.caught_up))

    @property
    def deadline(self) -> Instant:
        """When `tick` next has something to do; in the past if it has something to do now."""
        times = [self._round_at, *self._owed.values()]
        times.extend(link.stalled for link in self._links.values() if link.stalled is not None)
        if self._pulling is not None:
            times.append(self._pulling.expires)
        elif any(link.pending is not None for link in self._links.values()):
            times.append(self._quiet_since)
        return min(times)

    def connected(self, peer: NodeId, now: Instant) -> list[Transmit]:
        """Greet a neighbour with the root; whatever an earlier connection left is void."""
        self.disconnected(peer)
        link = self._links[peer] = _Link(now)
        link.greeted_until = Instant(now + _GREETING_S)
        return [self._root(peer)]

    def disconnected(self, peer: NodeId) -> None:
        """Forget a neighbour; what was asked of it will be asked of another."""
        self._links.pop(peer, None)
        self._owed.pop(peer, None)
        if self._pulling is not None and self._pulling.peer == peer:
            self._quiet_since = self._pulling.since
            self._pulling = None

    def admits(self, peer: NodeId, size: int, now: Instant) -> bool:
        """Whether the peer stays within its rate of bytes with a frame of this size."""
        link = self._links.get(peer)
        return link is None or link.received.take(size, now)

    def receive(
        self, peer: NodeId, message: Root | Digests | Pull | More, now: Instant
    ) -> list[Transmit]:
        """Answer a peer; one that is no neighbour (yet, or any more) is answered as well."""
        link = self._links.get(peer) or _Link(now)
        match message:
            case Root(root):
                return self._receive_root(peer, link, root, now)
            case Digests():
                return self._receive_digests(peer, link, message, now)
            case Pull():
                link.outbox = dict.fromkeys(answer_of(self._registers, message))
                return self._serve(peer, link, now)
            case More():
                return self._serve(peer, link, now) if link.outbox else []
            case _:
                assert_never(message)

    def bulk_received(self, peer: NodeId, now: Instant, *, more: bool, news: int) -> list[Transmit]:
        """Go on with the exchange after a `Bulk` that brought `news` new entries."""
        pulling = self._pulling
        if pulling is None or pulling.peer != peer:
            return []
        if more:
            if news:
                quiet_until = min(now + _PULL_QUIET_MAX_S, pulling.since + _PULL_MAX_S)
                pulling.expires = Instant(quiet_until)
            return [Transmit(peer, encode_frame(More()))]
        if pulling.complete:
            self._links[peer].caught_up = True
        elif news:
            self.owe([peer], now)
        return self._end_pull(now)

    def owe(self, peers: Iterable[NodeId], at: Instant) -> None:
        """Plan to exchange roots with these neighbours no later than `at`."""
        for peer in peers:
            if peer in self._links:
                self._owed[peer] = min(at, self._owed.get(peer, at))

    def deferred(self, peer: NodeId, now: Instant) -> None:
        """Ask again, less and less often, for what cannot be judged yet."""
        link = self._links.get(peer)
        if link is not None and peer not in self._owed:
            self.owe([peer], Instant(now + link.retry_s))
            link.retry_s = min(2 * link.retry_s, _RETRY_MAX_S)

    def reconsider(self, now: Instant) -> None:
        """Ask at once for what could not be judged before."""
        for peer, link in self._links.items():
            if link.retry_s > _RETRY_S:
                link.retry_s = _RETRY_S
                self.owe([peer], now)

    def shun(self, author: NodeId, now: Instant) -> None:
        """Do not pull what this author wrote for a while: it wrote more than is kept."""
        if author in self._registers.authors:
            self._shunned[author] = Instant(now + _SHUNNED_S)

    def tick(self, now: Instant) -> list[Transmit]:
        """Do what is due: rounds, roots that are owed, answers that waited, pulls that failed."""
        sent: list[Transmit] = []
        if self._pulling is not None and now >= self._pulling.expires:
            # The frames may have been lost: say so to this peer too, after the others.
            self.owe([self._pulling.peer], Instant(now + _RETRY_S))
            self._pulling = None
        if self._pulling is None:
            sent += self._begin_pull(now)
        for peer, link in self._links.items():
            if link.stalled is not None and now >= link.stalled:
                sent += self._serve(peer, link, now)
        if now >= self._round_at:
            self._round_at = self._next_round(now)
            if self._links:
                self._owed[self._rng.choice(self.peers)] = now
        due = [peer for peer, at in self._owed.items() if now >= at]
        for peer in due:
            del self._owed[peer]
            sent.append(self._root(peer))
        return sent

    def _receive_root(self, peer: NodeId, link: _Link, root: bytes, now: Instant) -> list[Transmit]:
        greeted_until, link.greeted_until = link.greeted_until, None
        if root == self._registers.root:
            link.caught_up = True
            return []
        crossed = greeted_until is not None and now < greeted_until
        if crossed and self._node > peer:
            return []  # Both greeted; one answer is enough, and the lesser id gives it.
        return self._answer(peer, link, self._registers.authors, now, full=True)

    def _receive_digests(
        self, peer: NodeId, link: _Link, theirs: Digests, now: Instant
    ) -> list[Transmit]:
        sent: list[Transmit] = []
        if theirs.full:
            unmatched = compare(self._registers, theirs).unmatched
            if unmatched:
                sent += self._answer(peer, link, unmatched, now, full=False)
        link.pending = theirs
        if self._pulling is None or self._pulling.peer == peer:
            sent += self._begin_pull(now)
        return sent

    def _begin_pull(self, now: Instant) -> list[Transmit]:
        """Pull from the first neighbour whose digests promise something new."""
        for peer, link in self._links.items():
            digests, link.pending = link.pending, None
            if digests is None:
                continue
            difference = compare(self._registers, digests)
            differing = [a for a in difference.differing if not self._shuns(a, now)]
            lacking = () if self._registers.full else difference.lacking
            if not (differing or lacking):
                link.caught_up = True
                continue
            pull, complete = pull_of(self._registers, differing, lacking, self._salt())
            expires = Instant(now + _PULL_QUIET_MAX_S)
            self._pulling = _Pulling(peer, since=now, expires=expires, complete=complete)
            return [Transmit(peer, encode_frame(pull))]
        return []

    def _end_pull(self, now: Instant) -> list[Transmit]:
        self._pulling = None
        return self._begin_pull(now)

    def _answer(
        self, peer: NodeId, link: _Link, authors: Iterable[NodeId], now: Instant, *, full: bool
    ) -> list[Transmit]:
        frame = encode_frame(digests_of(self._registers, authors, self._salt(), full=full))
        return [Transmit(peer, frame)] if link.sent.take(len(frame), now) else []

    def _serve(self, peer: NodeId, link: _Link, now: Instant) -> list[Transmit]:
        """Send one `Bulk` out of the outbox; an empty one says that there is nothing to send."""
        if not link.sent.has(FRAME_GOAL_BYTES, now):
            link.stalled = link.sent.ready_at(FRAME_GOAL_BYTES, now)
            return []
        link.stalled = None
        batch: list[bytes] = []
        size = 0
        for register in tuple(link.outbox):
            encoded = encode_entry(self._registers.all[register])
            size += len(encoded)
            if batch and size > FRAME_GOAL_BYTES:
                break
            batch.append(encoded)
            del link.outbox[register]
        frame = encode_frame(Bulk(entries=tuple(batch), more=bool(link.outbox)))
        link.sent.take(min(len(frame), FRAME_GOAL_BYTES), now)
        return [Transmit(peer, frame)]

    def _root(self, peer: NodeId) -> Transmit:
        return Transmit(peer, encode_frame(Root(self._registers.root)))

    def _shuns(self, author: NodeId, now: Instant) -> bool:
        until = self._shunned.get(author)
        if until is not None and now >= until:
            del self._shunned[author]
        return until is not None and now < until

    def _salt(self) -> bytes:
        return self._rng.randbytes(SALT_BYTES)

    def _next_round(self, now: Instant) -> Instant:
        return Instant(now + SYNC_INTERVAL_S * self._rng.uniform(1 - SYNC_JITTER, 1 + SYNC_JITTER))


def push_frames(encoded: Iterable[bytes]) -> list[bytes]:
    """Return `Push` frames with these encoded entries, as few as the size goal allows."""
    frames: list[Message] = []
    batch: list[bytes] = []
    size = 0
    for entry in encoded:
        if batch and size + len(entry) > FRAME_GOAL_BYTES:
            frames.append(Push(tuple(batch)))
            batch, size = [], 0
        batch.append(entry)
        size += len(entry)
    if batch:
        frames.append(Push(tuple(batch)))
    return [encode_frame(frame) for frame in frames]
