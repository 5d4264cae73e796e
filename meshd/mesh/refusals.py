"""Who was not let in, and why: counted, so that `meshd status` can say so."""

from __future__ import annotations

from dataclasses import dataclass

from ledger import NodeId
from meshd.events import Health

KEPT_MAX = 64
SHOWN_FOR_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One peer that was not let in for one reason."""

    where: str  # The address it came from, or those at which it was dialled.
    peer: NodeId
    why: str
    count: int
    last_at: float  # On trio's clock.


class Refusals:
    """The refusals of this node's life, the latest 64 of them by peer and reason."""

    def __init__(self) -> None:
        self._held: dict[tuple[NodeId, str], Refusal] = {}
        self._foreign: dict[str, float] = {}
        self.garbage = 0  # Connections that never became a proof: scans, other programs.

    @property
    def all(self) -> tuple[Refusal, ...]:
        """All of them, the latest last."""
        return tuple(sorted(self._held.values(), key=lambda refusal: refusal.last_at))

    def add(self, where: str, peer: NodeId, why: str, now: float) -> bool:
        """Count a refusal; True if it is the first of its kind."""
        key = (peer, why)
        old = self._held.get(key)
        count = 1 if old is None else old.count + 1
        self._held[key] = Refusal(where=where, peer=peer, why=why, count=count, last_at=now)
        while len(self._held) > KEPT_MAX:
            oldest = min(self._held, key=lambda held: self._held[held].last_at)
            del self._held[oldest]
        return old is None

    def count_garbage(self) -> None:
        """Count a connection that spoke something else."""
        self.garbage += 1

    def hear_foreign(self, where: str, now: float) -> None:
        """Note a beacon of another network."""
        self._foreign[where] = now
        while len(self._foreign) > KEPT_MAX:
            del self._foreign[min(self._foreign, key=lambda held: self._foreign[held])]

    def health(self, *, connected: bool, now: float) -> tuple[Health, ...]:
        """Return what an operator should know of the last ten minutes."""
        items = []
        fresh = [refusal for refusal in self.all if now - refusal.last_at < SHOWN_FOR_S]
        if fresh:
            places = ", ".join(sorted({refusal.where for refusal in fresh}))
            items.append(
                Health(
                    code="MESH-3101",
                    severity="warning",
                    message=f"no connection with {places}: {fresh[-1].why}",
                    fix="if it belongs to this cluster, it needs the same p2p.network_token",
                )
            )
        foreign = sorted(place for place, at in self._foreign.items() if now - at < SHOWN_FOR_S)
        if foreign and not connected:
            items.append(
                Health(
                    code="MESH-3102",
                    severity="warning",
                    message=f"machines of another network are near: {', '.join(foreign)}",
                    fix="if they belong to this cluster, compare `meshd token inspect` on both",
                )
            )
        return tuple(items)
