"""Who was not let in, and why: counted, so that `meshd status` can say so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ledger import NodeId
from meshd.events import Health

KEPT_MAX = 64
SHOWN_FOR_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One peer that was not let in for one reason."""

    hosts: tuple[str, ...]  # Where it came from, or where it was dialled.
    peer: NodeId
    why: str
    other_token: bool
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

    def add(
        self, hosts: Sequence[str], peer: NodeId, why: str, now: float, *, other_token: bool
    ) -> bool:
        """Count a refusal; True if it is the first of its kind."""
        key = (peer, why)
        old = self._held.get(key)
        self._held[key] = Refusal(
            hosts=tuple(hosts),
            peer=peer,
            why=why,
            other_token=other_token,
            count=1 if old is None else old.count + 1,
            last_at=now,
        )
        while len(self._held) > KEPT_MAX:
            oldest = min(self._held, key=lambda held: self._held[held].last_at)
            del self._held[oldest]
        return old is None

    def forgive(self, hosts: Collection[str]) -> None:
        """Forget the refusals of a machine that is let in now: its file was put right."""
        for key, refusal in list(self._held.items()):
            if not set(hosts).isdisjoint(refusal.hosts):
                del self._held[key]

    def count_garbage(self) -> None:
        """Count a connection that spoke something else."""
        self.garbage += 1

    def hear_foreign(self, where: str, now: float) -> bool:
        """Note a beacon of another network; True if none was heard of late."""
        is_first = all(now - at >= SHOWN_FOR_S for at in self._foreign.values())
        self._foreign[where] = now
        while len(self._foreign) > KEPT_MAX:
            del self._foreign[min(self._foreign, key=lambda held: self._foreign[held])]
        return is_first

    def foreign(self, now: float) -> tuple[str, ...]:
        """Return where beacons of other networks came from in the last ten minutes, sorted."""
        return tuple(sorted(at for at, seen in self._foreign.items() if now - seen < SHOWN_FOR_S))

    def health(self, *, seeking: bool, now: float) -> tuple[Health, ...]:
        """Return what an operator should know of the last ten minutes.

        Args:
            seeking: this node looks for others, and has found nobody yet.
            now: on trio's clock.
        """
        items = []
        fresh = [refusal for refusal in self.all if now - refusal.last_at < SHOWN_FOR_S]
        others = [refusal for refusal in fresh if refusal.other_token]
        if others:
            items.append(
                Health(
                    code="MESH-3101",
                    severity="warning",
                    message=f"{_machines(others)} another token: {others[-1].why}",
                    fix="if it belongs to this cluster, give it the same p2p.network_token "
                    "(compare `meshd token inspect` on both)",
                )
            )
        unruly = [refusal for refusal in fresh if not refusal.other_token]
        if unruly:
            items.append(
                Health(
                    code="MESH-3104",
                    severity="warning",
                    message=f"no link with {_places(unruly)}: {unruly[-1].why}",
                    fix="run the same version of meshd on both; if it goes on, take that machine "
                    "away",
                )
            )
        foreign = self.foreign(now)
        if foreign and seeking:
            items.append(
                Health(
                    code="MESH-3102",
                    severity="warning",
                    message=f"machines of another network are near: {', '.join(foreign)}",
                    fix="if they belong to this cluster, compare `meshd token inspect` on both",
                )
            )
        return tuple(items)


def _places(refusals: Sequence[Refusal]) -> str:
    return ", ".join(sorted({", ".join(refusal.hosts) for refusal in refusals}))


def _machines(refusals: Sequence[Refusal]) -> str:
    if len({refusal.peer for refusal in refusals}) > 1:
        return f"machines at {_places(refusals)} have"
    return f"a machine at {_places(refusals)} has"
