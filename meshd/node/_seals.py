"""Who gets which secret, and who has to seal it.

Invariant: before DONE secrets are sealed to members of the decided plan only; a worker gets the
agent token and nothing else. The core never sees a secret: it asks for ciphertext with `Seal`.
"""

from __future__ import annotations

from collections.abc import Collection
from types import MappingProxyType

from ledger import Instant, NodeId
from meshd.events import K3sObserved, Seal
from meshd.node._admins import AdminCopies, Copies
from meshd.node._directory import Directory
from meshd.node._orders import SERVER_SECRETS, WORKER_SECRETS, Standing, seat_in

RETRY_AFTER_S = 10.0
"""When an unanswered `Seal` is asked for again. A guess: sealing takes milliseconds."""

TAKE_OVER_AFTER_S = 10.0
"""How long each further seat waits for the one before it. A guess; costs a newcomer this long."""

Wanted = tuple[NodeId, str]
"""(recipient, name of the secret)."""


def sealed_key(recipient: NodeId, name: str, generation: int = 1) -> str:
    """Return the ledger key under which a secret sealed to `recipient` stands.

    Each generation has secrets of its own, so the later ones have their number behind the name.
    """
    return f"sealed/{recipient}/{name}" + (f".{generation}" if generation > 1 else "")


def secret_in(labelled: str) -> tuple[str, int]:
    """Return the name of the secret and the generation, from the last part of `sealed_key`."""
    name, _, number = labelled.partition(".")
    return name, int(number) if number.isdecimal() else 1


class Seals:
    """What this node has still to seal, and since when it knows."""

    def __init__(self) -> None:
        self._asked: dict[Wanted, Instant] = {}
        self._cluster_id = ""
        self._noticed: dict[Wanted, Instant] = {}
        self._admins = AdminCopies()
        self.deadline = Instant(float("inf"))

    def due(
        self,
        directory: Directory,
        standing: Standing,
        *,
        written: Collection[Wanted],
        holds_secrets: bool,
        now: Instant,
        for_admins: tuple[K3sObserved | None, Copies] = (None, MappingProxyType({})),
    ) -> list[Seal]:
        """Return what this node should seal now, and set `deadline` to when to ask again.

        Args:
            directory: who is known.
            standing: what is decided.
            written: what seat holders have put into the ledger already.
            holds_secrets: whether this node has the cluster's tokens itself.
            now: the time.
            for_admins: what k3s here says can be handed out to them, and what is in the ledger.
        """
        observed, copies = for_admins
        access = observed.admin if observed is not None else None
        due = self._admins.due(access, directory, standing, copies, now)
        self.deadline = self._admins.deadline
        cluster_id = standing.plan.cluster_id if standing.plan is not None else ""
        if cluster_id != self._cluster_id:
            self._cluster_id, self._asked, self._noticed = cluster_id, {}, {}
        wanted = [
            one
            for one in _wanted(directory, standing, holds_secrets=holds_secrets)
            if one not in written
        ]
        if not wanted:
            self._asked, self._noticed = {}, {}
            return due
        self._asked = {one: at for one, at in self._asked.items() if one in wanted}
        self._noticed = {one: self._noticed.get(one, now) for one in wanted}
        delay_s = TAKE_OVER_AFTER_S * _place(directory, standing)
        for recipient, name in wanted:
            facts = directory[recipient].facts
            assert facts is not None
            at = self._due_at((recipient, name), standing, delay_s)
            if at <= now:
                self._asked[recipient, name] = now
                due.append(
                    Seal(
                        recipient=recipient,
                        sealing_key=facts.sealing_key,
                        name=name,
                        cluster_id=cluster_id,
                    )
                )
                at = Instant(now + RETRY_AFTER_S)
            self.deadline = min(self.deadline, at)
        return due

    def _due_at(self, wanted: Wanted, standing: Standing, delay_s: float) -> Instant:
        if wanted in self._asked:
            return Instant(self._asked[wanted] + RETRY_AFTER_S)
        plan = standing.plan
        assert plan is not None
        # A seat's secrets are the initialiser's to seal: nobody else needs to wait for it.
        wait_s = 0.0 if plan.seat_of(wanted[0]) is not None else delay_s
        return Instant(self._noticed[wanted] + wait_s)


def _wanted(directory: Directory, standing: Standing, *, holds_secrets: bool) -> list[Wanted]:
    plan = standing.plan
    if plan is None or not holds_secrets:
        return []
    wanted: list[Wanted] = []
    if plan.initialiser == directory.me:
        wanted += [
            (seat.node, name)
            for seat in plan.seats
            for name in SERVER_SECRETS
            if seat.node != directory.me and directory[seat.node].facts is not None
        ]
    if standing.formed and plan.seat_of(directory.me) is not None:
        wanted += [
            (known.node, name)
            for known in directory.others()
            for name in WORKER_SECRETS
            if known.facts is not None
            and seat_in(plan, known.node, known.facts.role_wish) == "worker"
        ]
    return wanted


def _place(directory: Directory, standing: Standing) -> int:
    """Return how many living seats come before this node's."""
    plan = standing.plan
    if plan is None:
        return 0
    present = directory.present()
    before = [seat.node for seat in plan.seats]
    if directory.me in before:
        before = before[: before.index(directory.me)]
    return sum(node in present for node in before)
