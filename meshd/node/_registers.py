"""This node's own registers: written when their content changes, and not more often than needed.

Invariant: what stands in the ledger is written again only if it differs, so an idle network writes
nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from ledger import Instant
from meshd.events import ClusterOrder, K3sObserved
from meshd.node._directory import Directory
from meshd.node._orders import SeatKind, Standing
from meshd.schema import K3sRecord, LinkRecord

NEVER = Instant(float("inf"))

_RTT_CLASSES_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Register:
    """One register of this node; what is not urgent waits for `quiet_s`, to go with what follows.

    Args:
        key: of the ledger.
        quiet_s: how long a change may wait for further ones.
    """

    def __init__(self, key: str, *, quiet_s: float) -> None:
        self.key = key
        self.deadline = NEVER
        self._quiet_s = quiet_s
        self._published: bytes | None = None  # In this life; equal to an earlier one's: no write.

    def due(self, value: bytes, now: Instant, *, urgent: bool) -> bool:
        """Whether `value` is to be written now; else `deadline` says when to ask again."""
        if value == self._published:
            self.deadline = NEVER
            return False
        if not urgent and self.deadline == NEVER:
            self.deadline = Instant(now + self._quiet_s)
        if not urgent and now < self.deadline:
            return False
        self._published = value
        self.deadline = NEVER
        return True


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
    seen = observed or held or K3sObserved(state="absent")
    state = seen.state
    if state == "absent" and seat != "none":
        state = "waiting"
    return K3sRecord(
        state=state,
        seat=seat,
        cluster_id=ours.cluster_id if ours is not None else "",
        generation=ours.generation if ours is not None else 0,
        version=seen.version,
        waiting_for=waiting,
        endpoint=seen.endpoint,
        voters=tuple(sorted(seen.voters)),
        kube_system_uid=seen.kube_system_uid,
        nodes_ready=seen.nodes_ready,
        vip_holder=seen.vip_holder,
    )


def acted_on(record: K3sRecord) -> K3sRecord:
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
