"""The ledger's registers as this node understands them: records in the directory, secrets, proofs.

Invariant: a value that cannot be decoded changes nothing but a count; it is its author's fault or
of a later version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Protocol, assert_never

import msgspec

from ledger import Entry, Moment, NodeId
from meshd.events import ClockObserved, Connected, Disconnected, Learn, LinkObserved, Note
from meshd.node._admins import Copies
from meshd.node._clocks import Clocks, judge_clocks
from meshd.node._directory import Directory
from meshd.node._seals import secret_in
from meshd.node._soundness import Unsound, sound_facts, sound_k3s
from meshd.schema import ADMIN_DIGEST_BYTES, ADMIN_KUBECONFIG, Facts, K3sRecord, LinkRecord
from roles.resets import BadReset, Reset, read_reset

_FACTS = msgspec.msgpack.Decoder(Facts)
_K3S = msgspec.msgpack.Decoder(K3sRecord)
_LINKS = msgspec.msgpack.Decoder(tuple[LinkRecord, ...])


class CaughtUp(Protocol):
    """What a ledger says of its exchanges."""

    @property
    def caught_up(self) -> Collection[NodeId]: ...


class View:
    """What the entries taken in so far say; `people_changed` is for its reader to reset."""

    def __init__(self, me: NodeId) -> None:
        self.me = me
        self.directory = Directory(me)
        self._handed_over: dict[int, set[tuple[NodeId, str]]] = {}  # (recipient, secret).
        self._copies: dict[int, dict[tuple[str, NodeId], bytes]] = {}  # For administrators.
        self.malformed: Counter[NodeId] = Counter()
        self.clocks = Clocks()
        self.people_changed = True  # Whether candidates, or who is present, may have changed.
        # To this node, by generation: secret, by author.
        self._sealed: dict[int, dict[str, dict[NodeId, bytes]]] = {}
        self.resets: dict[bytes, Reset] = {}  # By digest.

    def link_changed(
        self, event: Connected | Disconnected | LinkObserved | ClockObserved
    ) -> list[Note]:
        """Take in what happened to the link with a neighbour."""
        known = self.directory[event.peer]
        self.people_changed = True
        notes = []
        match event:
            case Connected(_, path):
                if not known.connected:
                    # Of a stranger the name comes with its facts: the id tells who it was.
                    who = known.name if known.facts is not None else known.node
                    text = f"connected to {who} ({path})"
                    notes.append(Note(kind="peer_joined", text=text))
                known.connected, known.path, known.link = True, path, "alive"
                self.directory.behind.add(known.node)
            case Disconnected(_, reason):
                known.connected, known.path, known.rtt_ms = False, None, None
                self.directory.behind.discard(known.node)
                if known.link != "left":
                    known.link = "failed"
                text = f"no connection to {known.name}: {reason}"
                notes.append(Note(kind="peer_lost", text=text))
            case LinkObserved(_, state, rtt_ms):
                known.link, known.rtt_ms = state, rtt_ms
            case ClockObserved(_, epoch_ms):
                known.clock_epoch_ms = epoch_ms
            case _:
                assert_never(event)
        return notes

    def caught_up(self, replica: CaughtUp) -> None:
        """Take note of the neighbours whose registers are all here."""
        behind = self.directory.behind
        if behind and (done := behind.intersection(replica.caught_up)):
            behind -= done
            self.people_changed = True

    def judge_clocks(self, now: Moment) -> None:
        """Read all clocks, and take in whose are wrong."""
        self.clocks = judge_clocks(self.directory, now)
        for known in self.directory:
            if known.clock_is_wrong != (known.node in self.clocks.wrong):
                known.clock_is_wrong = known.node in self.clocks.wrong
                self.people_changed = True

    def take(self, entry: Entry) -> list[Learn]:
        """Take in a register that is new to this node, and lawful."""
        if entry.value is None:
            return []
        try:
            return self._read(entry, entry.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Unsound, BadReset):
            self.malformed[entry.author] += 1
            return []

    def _read(self, entry: Entry, value: bytes) -> list[Learn]:
        match entry.key.split("/"):
            case ["node", _, "facts"]:
                return self._take_facts(entry.author, sound_facts(_FACTS.decode(value)))
            case ["node", _, "k3s"]:
                self.directory[entry.author].k3s = sound_k3s(_K3S.decode(value))
            case ["node", _, "links"]:
                self.directory[entry.author].neighbours = _LINKS.decode(value)
                self.people_changed = True
            case ["sealed", recipient, labelled]:
                name, generation = secret_in(labelled)
                over = self._handed_over.setdefault(generation, set())
                over.add((NodeId(recipient), name))
                if name == ADMIN_KUBECONFIG:
                    copies = self._copies.setdefault(generation, {})
                    copies[recipient, entry.author] = value[:ADMIN_DIGEST_BYTES]
                if recipient == self.me:
                    to_me = self._sealed.setdefault(generation, {})
                    to_me.setdefault(name, {})[entry.author] = value
            case ["cluster", "seats", _]:
                reset = read_reset(value, network_id=entry.network)
                self.resets[reset.digest] = reset
            case _:
                pass
        return []

    def handed_over(self, generation: int) -> frozenset[tuple[NodeId, str]]:
        """Return what was sealed in that generation: (recipient, name of the secret)."""
        return frozenset(self._handed_over.get(generation, ()))

    def copies(self, generation: int) -> Copies:
        """Return what was sealed to administrators in that generation."""
        return self._copies.get(generation, {})

    def sealed_by(self, first: NodeId | None, *, generation: int = 1) -> dict[str, bytes]:
        """Return the secrets sealed to this node by name, those that `first` sealed preferred."""
        return {
            name: by_author[first] if first in by_author else by_author[min(by_author)]
            for name, by_author in sorted(self._sealed.get(generation, {}).items())
        }

    def _take_facts(self, author: NodeId, facts: Facts) -> list[Learn]:
        known = self.directory[author]
        before, known.facts = known.facts, facts
        if before is None or before.name != facts.name:
            self.directory.name_namesakes()
        self.people_changed = True
        if author == self.me or (before is not None and before.addresses == facts.addresses):
            return []
        return [Learn(author, facts.addresses)]
