"""Who seals the administrator's kubeconfig to the keys in `p2p.meshd.admins`, and when again.

The first living seat does, so that there is a fresh copy; one of the others, each a while after the
one before it, only if there is none at all. Invariant: nothing is asked for before DONE.
"""

from __future__ import annotations

from collections.abc import Mapping

from ledger import Instant, NodeId
from meshd.events import AdminAccess, Seal
from meshd.node._directory import Directory
from meshd.node._orders import Standing
from meshd.schema import ADMIN_KUBECONFIG

RETRY_AFTER_S = 10.0
TAKE_OVER_AFTER_S = 10.0
"""Both as for the other secrets (`meshd.node._seals`)."""

Copies = Mapping[tuple[str, NodeId], bytes]
"""Digests of the copies in the ledger, by (recipient, author)."""


class AdminCopies:
    """What this node has still to seal for administrators, and since when it knows."""

    def __init__(self) -> None:
        self._asked: dict[str, Instant] = {}
        self._noticed: dict[str, Instant] = {}
        self.deadline = Instant(float("inf"))

    def due(
        self,
        access: AdminAccess | None,
        directory: Directory,
        standing: Standing,
        copies: Copies,
        now: Instant,
    ) -> list[Seal]:
        """Return what this node should seal now, and set `deadline` to when to ask again."""
        self.deadline = Instant(float("inf"))
        has_any = access is not None and access.admins and standing.formed
        place = _place(directory, standing) if has_any else None
        if access is None or place is None:
            self._asked, self._noticed = {}, {}
            return []
        copied = {recipient for recipient, _ in copies}
        wanted = [
            (recipient, key)
            for recipient, key in access.admins
            if copies.get((recipient, directory.me)) != access.digest
            and (place == 0 or recipient not in copied)
        ]
        names = {recipient for recipient, _ in wanted}
        self._asked = {one: at for one, at in self._asked.items() if one in names}
        self._noticed = {one: self._noticed.get(one, now) for one, _ in wanted}
        due = []
        for recipient, key in wanted:
            at = Instant(self._noticed[recipient] + TAKE_OVER_AFTER_S * place)
            if recipient in self._asked:
                at = Instant(self._asked[recipient] + RETRY_AFTER_S)
            if at <= now:
                self._asked[recipient] = now
                assert standing.plan is not None
                due.append(
                    Seal(
                        recipient=NodeId(recipient),
                        sealing_key=key,
                        name=ADMIN_KUBECONFIG,
                        cluster_id=standing.plan.cluster_id,
                    )
                )
                at = Instant(now + RETRY_AFTER_S)
            self.deadline = min(self.deadline, at)
        return due


def _place(directory: Directory, standing: Standing) -> int | None:
    """Return how many living seats come before this node's; None if it has none."""
    plan = standing.plan
    if plan is None or plan.seat_of(directory.me) is None:
        return None
    present = directory.present()
    seats = [seat.node for seat in plan.seats]
    return sum(node in present for node in seats[: seats.index(directory.me)])
