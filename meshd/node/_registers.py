"""This node's own registers: written when their content changes, and not more often than needed.

Invariant: what stands in the ledger is written again only if it differs, so an idle network writes
nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import msgspec

from ledger import Instant, NodeId
from meshd.events import ClusterOrder, K3sObserved
from meshd.node._directory import Directory
from meshd.node._orders import SeatKind, Standing
from meshd.node._soundness import printable
from meshd.schema import K3sRecord, LinkRecord
from roles import K3sReading

NEVER = Instant(float("inf"))

WORDS_QUIET_S = 2.0
"""A change of words alone waits this long for the next one. A guess."""

LINKS_QUIET_S = 300.0
"""Nothing depends on the round trips that are published, and on a busy machine they change all the
time: at 5 s they were a third of what ten idle nodes sent each other. A guess."""

NEIGHBOURS_QUIET_S = 0.2
"""Neighbours come in bunches, and from them nodes further off learn who is there. A guess."""

SPACING_S = 2.0
"""A register is not rewritten more often for what is not urgent. A guess."""

_RTT_CLASSES_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class _Register:
    """One register; a change that is not urgent waits a moment, to go with what follows."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.deadline = NEVER
        self._published: bytes | None = None  # In this life; equal to an earlier one's: no write.
        self._written_at = Instant(float("-inf"))

    def differs(self, value: bytes) -> bool:
        """Whether `value` is not what the register holds; if it is, nothing is put off any more."""
        if value == self._published:
            self.deadline = NEVER
        return value != self._published

    def due(self, value: bytes, now: Instant, *, quiet_s: float) -> bool:
        """Whether `value` is to be written now; else `deadline` says when to ask again.

        Args:
            value: what the register should hold, and does not.
            now: the time.
            quiet_s: how long this change may wait; 0 for one that is urgent.
        """
        if quiet_s > 0:
            soonest = max(now + quiet_s, self._written_at + SPACING_S)
            self.deadline = min(self.deadline, Instant(soonest))
            if now < self.deadline:
                return False
        self._published = value
        self._written_at = now
        self.deadline = NEVER
        return True


class OwnRegisters:
    """What this node says of its k3s and of its links."""

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self._k3s = _Register(f"node/{me}/k3s")
        self._links = _Register(f"node/{me}/links")

    @property
    def deadline(self) -> Instant:
        """When a change that was put off is due."""
        return min(self._k3s.deadline, self._links.deadline)

    def due(
        self, directory: Directory, record: K3sRecord, now: Instant
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the key and value of each register that is to be written now."""
        known = directory[self._me]
        value = msgspec.msgpack.encode(record)
        if self._k3s.differs(value):
            urgent = known.k3s is None or _acted_on(known.k3s) != _acted_on(record)
            if self._k3s.due(value, now, quiet_s=0.0 if urgent else WORDS_QUIET_S):
                yield self._k3s.key, value
        links = link_records(directory, known.neighbours)
        value = msgspec.msgpack.encode(links)
        if self._links.differs(value):
            same = {link.peer for link in links} == {link.peer for link in known.neighbours}
            if self._links.due(value, now, quiet_s=LINKS_QUIET_S if same else NEIGHBOURS_QUIET_S):
                yield self._links.key, value


def reading_of(event: K3sObserved) -> K3sReading:
    """Return what genesis needs of what k3s says."""
    return K3sReading(
        cluster_id=event.cluster_id,
        voters=event.voters,
        kube_system_uid=event.kube_system_uid,
        members=event.members,
        exits=event.exits,
        stopped=event.stopped,
    )


def _of_this_plan(observed: K3sObserved | None, standing: Standing) -> K3sObserved | None:
    """Return what was observed, without what an earlier generation's cluster said of itself."""
    plan = standing.plan
    if observed is None or plan is None or observed.cluster_id in ("", plan.cluster_id):
        return observed
    return K3sObserved(state=observed.state, version=observed.version)


def k3s_record(
    *,
    seat: SeatKind,
    standing: Standing,
    order: ClusterOrder,
    observed: K3sObserved | None,
    held: K3sRecord | None,
    waiting: str | None,
) -> K3sRecord:
    """Return what this node says of its k3s: what was read from k3s itself, and its wait.

    Until k3s was looked at in this life, what the last life saw, `held`, stands: the daemon having
    been away says nothing about k3s.
    """
    ours = standing.plan if order.seat != "none" else None
    if held is not None and ours is not None and held.cluster_id not in ("", ours.cluster_id):
        held = None  # Of a generation that is over.
    seen = _of_this_plan(observed, standing) or held or K3sObserved(state="absent")
    state = seen.state
    if state == "absent" and seat != "none":
        state = "waiting"
    return K3sRecord(
        state=state,
        seat=seat,
        cluster_id=ours.cluster_id if ours is not None else "",
        generation=ours.generation if ours is not None else 0,
        version=printable(seen.version),
        waiting_for=printable(waiting) if waiting is not None else None,
        endpoint=seen.endpoint,
        voters=tuple(sorted(seen.voters)),
        kube_system_uid=seen.kube_system_uid,
        nodes_ready=seen.nodes_ready,
        vip_holder=seen.vip_holder,
        lost_database=seen.lost_database,
        epoch=max(seen.epoch, held.epoch if held is not None else 0),
        seats=standing.succession.head.hex(),
        resetting=seen.resetting,
        superseded=seen.superseded,
    )


def _acted_on(record: K3sRecord) -> K3sRecord:
    """Return the part of the record that other nodes act on."""
    return msgspec.structs.replace(record, waiting_for=None, version="", nodes_ready=None)


def link_records(directory: Directory, held: Sequence[LinkRecord]) -> tuple[LinkRecord, ...]:
    """Return this node's neighbours with their round trips in coarse classes.

    A round trip that is still within a factor of 1.5 of the class it had keeps it: one at the
    border of two classes must not rewrite the register for ever.
    """
    before = {link.peer: link.rtt_class_ms for link in held}
    return tuple(
        LinkRecord(
            peer=known.node,
            path=known.path or "direct",
            rtt_class_ms=_class_of(known.rtt_ms, before.get(known.node)),
        )
        for known in directory.others()
        if known.connected
    )


def _class_of(rtt_ms: float | None, before: int | None) -> int:
    if rtt_ms is None:
        return before or 0
    index = min(bisect_left(_RTT_CLASSES_MS, rtt_ms), len(_RTT_CLASSES_MS) - 1)
    if before in _RTT_CLASSES_MS:
        was = _RTT_CLASSES_MS.index(before)
        lower = _RTT_CLASSES_MS[was - 1] if was > 0 else 0.0
        if lower / 1.5 <= rtt_ms <= before * 1.5:
            return before
    return _RTT_CLASSES_MS[index]
