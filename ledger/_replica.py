"""One node's copy of the ledger, as a state machine that does no I/O.

The caller feeds it frames and the time and performs the effects that it returns, in order. `Store`
comes before any `Transmit` that reveals what is stored, so no crash makes a node forget a `seq`
that others have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import assert_never

from ledger._effects import Effect, Reject, Store, Transmit
from ledger._entry import BadEntry, Entry, Unverified, encode_entry, parse_entry, sign_entry
from ledger._identity import Instant, Moment, NodeId, Signer
from ledger._limits import (
    FRAME_MAX_BYTES,
    PUSHED_BURST,
    PUSHED_PER_S,
    REISSUED_BURST,
    REISSUED_PER_S,
    TokenBucket,
)
from ledger._messages import BadFrame, Bulk, Digests, More, Pull, Push, Root, decode_frame
from ledger._passing import Passing
from ledger._policy import Authority, Verdict
from ledger._registers import Register, Registers
from ledger._sync import Sync, push_frames

_OWN_SEQ_MAX = 2**62  # Beyond, only a thief of the key wrote; to exceed it would end the numbers.
_FAULTS_PER_FRAME_MAX = 8  # Then the rest of the frame is not worth a look.
_PUSHED_ON_MAX = 32  # More than that at once is a synchronisation: neighbours are asked instead.
_ASKED_AFTER_S = (0.05, 0.3)  # Spread, so that neighbours of neighbours do not all ask at once.


class Replica:
    """The registers this node knows, and the exchanges that keep replicas equal.

    Args:
        signer: the node's own key, which authors every `write`.
        network: id of the network; entries of others are refused.
        authority: judges every entry of another author.
        rng: chooses neighbours, jitter and salts.
        now: when this replica starts.
        entries: what storage held, already decoded; trusted, as it was judged when it came.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        network: str,
        authority: Authority,
        rng: Random,
        now: Moment,
        entries: Iterable[Entry] = (),
    ) -> None:
        self._signer = signer
        self._network = network
        self._authority = authority
        self._rng = rng
        self._registers = Registers()
        for entry in entries:
            assert entry.network == network
            self._registers.merge(entry)
        self._sync = Sync(signer.node_id, self._registers, rng, now.at)
        self._passing = Passing(rng)
        self._rejected: dict[NodeId, int] = {}
        self._pushed: dict[NodeId, TokenBucket] = {}
        self._written: dict[str, None] = {}  # Keys that this node wrote since it started.
        self._contested: dict[str, int] = {}  # Own key -> a foreign `seq` to be exceeded.
        self._reissued = TokenBucket(REISSUED_PER_S, REISSUED_BURST, now.at)
        self._reissues = 0
        self._forgotten: Entry | None = None
        self._at = now.at

    @property
    def entries(self) -> Mapping[Register, Entry]:
        """Every register's newest entry by (author, key), tombstones included; a live view."""
        return self._registers.all

    @property
    def root(self) -> bytes:
        """32 bytes that are equal on two replicas exactly if they hold the same entries."""
        return self._registers.root

    @property
    def deadline(self) -> Instant:
        """When `tick` next has something to do; in the past if it has something to do now."""
        soonest = min(self._sync.deadline, self._passing.deadline)
        if not self._contested:
            return soonest
        return min(soonest, self._reissued.ready_at(1.0, self._at))

    @property
    def caught_up(self) -> tuple[NodeId, ...]:
        """The connected peers of which everything that they held was fetched, sorted.

        What they learn later is pushed, or fetched in a later round.
        """
        return self._sync.caught_up

    @property
    def rejected(self) -> Mapping[NodeId, int]:
        """How many faults each peer was found to make since this replica started."""
        return MappingProxyType(self._rejected)

    @property
    def equivocations(self) -> Mapping[NodeId, tuple[Entry, Entry]]:
        """Authors seen to sign two values with one `seq`, with the first such pair as proof.

        This node itself is among them if its key is in use twice, or an old disk was restored.
        """
        return self._registers.equivocations

    @property
    def reissues(self) -> int:
        """How often an own value had to be published again above one of another life.

        A few after an old disk was restored; if it keeps growing, a second node has the same key.
        """
        return self._reissues

    @property
    def forgotten(self) -> Entry | None:
        """The first entry by this node that a peer knew and its own storage did not.

        What a node says is stored before it is sent, so this one was written by another life: the
        storage was lost or is an old copy, or this node's key is in use on two machines.
        """
        return self._forgotten

    def get(self, key: str) -> tuple[Entry, ...]:
        """Return what each author holds under `key`, authors sorted, without tombstones.

        Registers of different authors do not compete: which of them counts, its reader decides.
        """
        found = (self._registers.find(author, key) for author in self._registers.authors)
        return tuple(entry for entry in found if entry is not None and entry.value is not None)

    def write(self, key: str, value: bytes, now: Moment) -> list[Effect]:
        """Publish a value in this node's own register; nothing happens if it holds it already.

        A register written since the start is this node's to keep: should an older self turn out to
        have used a greater `seq`, the value is published again above it. The caller sees to it
        that the node may write this key: others refuse what it may not.

        Raises:
            ValueError: the key, the value or the number of own keys is outside its limits.
        """
        return self._publish(key, value, now)

    def delete(self, key: str, now: Moment) -> list[Effect]:
        """Replace this node's own value by a tombstone, which still counts as a key."""
        if self._registers.find(self._signer.node_id, key) is None:
            return []
        return self._publish(key, None, now)

    def connected(self, peer: NodeId, now: Moment) -> list[Effect]:
        """Take a peer as a neighbour and compare roots with it."""
        self._at = now.at
        return [*self._sync.connected(peer, now.at)]

    def disconnected(self, peer: NodeId) -> None:
        """Forget a neighbour."""
        self._sync.disconnected(peer)
        self._passing.forget(peer)

    def receive(self, peer: NodeId, frame: bytes, now: Moment) -> list[Effect]:
        """Take in one frame of a peer. Whatever the bytes are, nothing is raised."""
        self._at = now.at
        if len(frame) > FRAME_MAX_BYTES:
            return self._reject(peer, [f"a frame of {len(frame)} bytes"])
        if not self._sync.admits(peer, len(frame), now.at):
            return self._reject(peer, ["more bytes per second than allowed"])
        try:
            message = decode_frame(frame)
        except BadFrame as error:
            return self._reject(peer, [str(error)])
        match message:
            case Push(encoded):
                return self._learn(peer, encoded, now, pushed=True)[0]
            case Bulk(encoded, more):
                effects, news = self._learn(peer, encoded, now, pushed=False)
                return effects + self._sync.bulk_received(peer, now.at, more=more, news=news)
            case Root() | Digests() | Pull() | More():
                return [*self._sync.receive(peer, message, now.at)]
            case _:
                assert_never(message)

    def reconsider(self, now: Moment) -> list[Effect]:
        """Ask again for what was deferred: to be called when more is known about authority."""
        self._sync.reconsider(now.at)
        return self.tick(now)

    def tick(self, now: Moment) -> list[Effect]:
        """Do what is due; harmless at any time."""
        self._at = now.at
        return [*self._reissue(now), *self._pass_on(now), *self._sync.tick(now.at)]

    def _publish(self, key: str, value: bytes | None, now: Moment) -> list[Effect]:
        held = self._registers.find(self._signer.node_id, key)
        if held is not None and held.value == value:
            self._written[key] = None
            return []
        above = max(held.seq if held is not None else 0, self._contested.get(key, 0))
        entry = self._sign(key, value, now, above=above)
        if not self._registers.has_room(entry.author, key, len(encode_entry(entry))):
            raise ValueError(f"{key}: more keys or bytes than one author may have")
        self._written[key] = None
        self._contested.pop(key, None)
        self._registers.merge(entry)
        return self._spread([entry], now)

    def _sign(self, key: str, value: bytes | None, now: Moment, *, above: int) -> Entry:
        return sign_entry(
            self._signer,
            network=self._network,
            key=key,
            seq=above + 1,
            stamp_ms=now.wall_ms,
            value=value,
        )

    def _spread(
        self, entries: Iterable[Entry], now: Moment, origin: NodeId | None = None
    ) -> list[Effect]:
        """Store entries that were merged just now; own ones are pushed, others' passed on later.

        Args:
            entries: the news.
            now: the time.
            origin: who sent them, and so has them already; None if this node wrote them.
        """
        news = tuple(entries)
        if not news:
            return []
        peers = [peer for peer in self._sync.peers if peer != origin]
        if origin is not None:
            self._passing.add(news, peers, now.at)
            return [Store(news)]
        return [Store(news), *self._push(peers, news, now)]

    def _pass_on(self, now: Moment) -> list[Effect]:
        due = self._passing.due(now.at)
        return [push for peer, news in due for push in self._push([peer], news, now)]

    def _push(self, peers: Sequence[NodeId], news: Sequence[Entry], now: Moment) -> list[Transmit]:
        if len(news) > _PUSHED_ON_MAX:
            for peer in peers:
                self._sync.owe([peer], Instant(now.at + self._rng.uniform(*_ASKED_AFTER_S)))
            return []
        frames = list(push_frames(map(encode_entry, news)))
        return [Transmit(peer, frame) for peer in peers for frame in frames]

    def _learn(
        self, peer: NodeId, encoded: Iterable[bytes], now: Moment, *, pushed: bool
    ) -> tuple[list[Effect], int]:
        """Return the effects of entries that a peer sent, and how many of them were news."""
        news: dict[Register, Entry] = {}
        faults: list[str] = []
        for one in encoded:
            if len(faults) >= _FAULTS_PER_FRAME_MAX:
                break
            try:
                entry = self._examine(peer, one, now, pushed=pushed)
            except BadEntry as error:
                faults.append(str(error))
                continue
            if entry is None:
                continue
            if entry.author == self._signer.node_id and self._forgotten is None:
                self._forgotten = entry  # `_examine` returns what is held only if it is new here.
            if self._contest(entry):
                continue
            if self._registers.merge(entry):
                news[entry.author, entry.key] = entry
        effects = self._spread(news.values(), now, origin=peer) + self._reissue(now)
        if faults:
            effects += self._reject(peer, faults)
        return effects, len(news)

    def _examine(self, peer: NodeId, encoded: bytes, now: Moment, *, pushed: bool) -> Entry | None:
        """Return the entry if it is authentic, lawful and new, checking the cheapest first.

        Raises:
            BadEntry: the peer should not have sent this.
        """
        claim = parse_entry(encoded, self._network)
        self._passing.seen(peer, claim)
        held = self._registers.find(claim.author, claim.key)
        if held is not None and not self._is_of_interest(claim, held):
            return None
        own = claim.author == self._signer.node_id
        if own and claim.seq > _OWN_SEQ_MAX:
            return None
        pace = self._pace(claim.author, now) if pushed and not own else None
        if pace is not None and not pace.has(1.0, now.at):
            return None  # A later exchange brings it.
        if not self._registers.has_room(claim.author, claim.key, len(encoded)):
            self._sync.shun(claim.author, now.at)
            return None
        if not own:
            verdict = self._authority.judge(claim.author, claim.key, claim.value)
            if verdict is Verdict.DEFER:
                self._sync.deferred(peer, now.at)
                return None
            if verdict is not Verdict.ACCEPT:
                raise BadEntry(f"{claim.key} by {claim.author}: {verdict}")
        entry = claim.authenticate()
        if pace is not None:  # Not earlier: a forger must not use up its victim's share.
            pace.take(1.0, now.at)
            self._pushed[claim.author] = pace
        return entry

    def _is_of_interest(self, claim: Unverified, held: Entry) -> bool:
        if (claim.seq, claim.digest) > (held.seq, held.digest):
            return True
        contradiction = claim.seq == held.seq and claim.digest != held.digest
        return contradiction and claim.author not in self._registers.equivocations

    def _pace(self, author: NodeId, now: Moment) -> TokenBucket:
        return self._pushed.get(author) or TokenBucket(PUSHED_PER_S, PUSHED_BURST, now.at)

    def _contest(self, entry: Entry) -> bool:
        """Whether `entry` is an older self's and must not replace what was written since."""
        if entry.author != self._signer.node_id or entry.key not in self._written:
            return False
        held = self._registers.find(entry.author, entry.key)
        assert held is not None
        if not entry.supersedes(held) or entry.value == held.value:
            return False
        self._registers.witness(entry)
        self._contested[entry.key] = max(entry.seq, self._contested.get(entry.key, 0))
        return True

    def _reissue(self, now: Moment) -> list[Effect]:
        """Publish again, above the greatest `seq` seen, what an older self contests."""
        issued: list[Entry] = []
        for key, seq in list(self._contested.items()):
            if not self._reissued.take(1.0, now.at):
                break
            del self._contested[key]
            held = self._registers.find(self._signer.node_id, key)
            assert held is not None
            entry = self._sign(key, held.value, now, above=max(seq, held.seq))
            self._registers.merge(entry)
            self._reissues += 1
            issued.append(entry)
        return self._spread(issued, now)

    def _reject(self, peer: NodeId, faults: list[str]) -> list[Effect]:
        self._rejected[peer] = self._rejected.get(peer, 0) + len(faults)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return [Reject(peer, faults[0] + more)]
