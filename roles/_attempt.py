"""One ballot of one proposer: the promises and votes that came in, and what they allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ledger import Instant, NodeId
from roles._messages import Accept, Authentic, Ballot, Promise
from roles._state import Slot


@dataclass(slots=True, kw_only=True)
class Attempt:
    """A ballot under way. Not durable: after a restart the proposer begins a higher one."""

    slot: Slot
    ballot: Ballot
    ask: Authentic  # Prepare, later Accept: what is sent again to those who did not answer.
    resend_at: Instant
    resend_after_s: float
    promises: dict[NodeId, Authentic] = field(default_factory=dict)
    votes: dict[NodeId, Authentic] = field(default_factory=dict)

    @property
    def preparing(self) -> bool:
        """Whether this is still phase 1."""
        return not isinstance(self.ask.message, Accept)

    @property
    def answered(self) -> dict[NodeId, Authentic]:
        """Who answered in this phase."""
        return self.promises if self.preparing else self.votes

    def without(self, is_refused: Callable[[bytes], bool]) -> Attempt:
        """Return this attempt as if the promises that hold such a value had been lost."""
        left = {n: p for n, p in self.promises.items() if not (p.value and is_refused(p.value))}
        return replace(self, promises=left)

    def value_to_adopt(self) -> bytes | None:
        """Return the value of the highest ballot accepted by any promiser; None leaves the choice.

        This is P2c (Lamport 2001, section 2.2): what a quorum may already have chosen is kept.
        """
        held: list[tuple[Ballot, bytes]] = []
        for sealed in self.promises.values():
            promise = sealed.message
            assert isinstance(promise, Promise)
            if promise.accepted is not None:
                held.append((promise.accepted[0], sealed.value))
        return max(held)[1] if held else None
