"""The simulated network between machines: cuts in either direction, loss, duplication, delay.

Invariant: a frame arrives only if its direction is open at the moment of arrival.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from random import Random

from simulations.model.timeline import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How badly frames travel. Probabilities from 0 to 1."""

    loss: float = 0.0
    duplication: float = 0.0
    slow: float = 0.0  # Share of frames that take up to `slow_s`.
    slow_s: float = 60.0
    latency_s: tuple[float, float] = (0.001, 0.05)


class Network:
    """Directed links between `size` machines."""

    def __init__(self, *, size: int, timeline: Timeline, rng: Random, weather: Weather) -> None:
        self._size = size
        self._timeline = timeline
        self._rng = rng
        self._closed = [[False] * size for _ in range(size)]
        self._mesh_closed = [[False] * size for _ in range(size)]  # While k3s gets through.
        self._pair_until: dict[tuple[int, int], float] = {}
        self.before_delivery: Callable[[int, int, bytes], float | None] = lambda *_: None
        """Directed schedules: when a frame arrives, whatever is cut by then; None: as usual."""
        self.weather = weather
        self.met: Counter[str] = Counter()

    def passes(self, source: int, target: int) -> bool:
        """Whether frames from `source` reach `target` at present."""
        closed = self._closed[source][target] or self._mesh_closed[source][target]
        return not (closed or self._is_cut(source, target))

    def meshes(self, one: int, other: int) -> bool:
        """Whether meshd on the two can have a connection: both directions are open."""
        return self.passes(one, other) and self.passes(other, one)

    def connects(self, one: int, other: int) -> bool:
        """Whether etcd and k3s on the two can: a cut may close meshd's port alone."""
        closed = self._closed[one][other] or self._closed[other][one]
        return not (closed or self._is_cut(one, other))

    def _is_cut(self, one: int, other: int) -> bool:
        pair = (one, other) if one < other else (other, one)
        return self._pair_until.get(pair, 0.0) > self._timeline.now

    def send(self, source: int, target: int, frame: bytes, deliver: Callable[[], None]) -> None:
        """Deliver once, twice or not at all, at once or late, if the link is open then."""
        rng, weather = self._rng, self.weather
        given = self.before_delivery(source, target, frame)
        if given is not None:
            self._timeline.after(given, deliver)
            return
        copies = 2 if weather.duplication and rng.random() < weather.duplication else 1
        if copies == 2:
            self.met["frames doubled"] += 1
        for _ in range(copies):
            if weather.loss and rng.random() < weather.loss:
                self.met["frames lost"] += 1
                continue
            delay_s = rng.uniform(*weather.latency_s)
            if weather.slow and rng.random() < weather.slow:
                # Reordering: most of the slow ones are late by seconds, a few by a minute.
                delay_s = rng.uniform(0.1, weather.slow_s if rng.random() < 0.2 else 3.0)
                self.met["frames late by over 3 s"] += delay_s > 3.0
            self._arrive_after(delay_s, source, target, deliver)

    def _arrive_after(
        self, delay_s: float, source: int, target: int, deliver: Callable[[], None]
    ) -> None:
        def arrive() -> None:
            if self.passes(source, target):
                deliver()

        self._timeline.after(delay_s, arrive)

    def cut_pair(self, one: int, other: int, until: float) -> None:
        """Close one link, whatever else opens or closes, until that instant."""
        self._pair_until[min(one, other), max(one, other)] = until

    def separate(
        self, group: Collection[int], *, both_ways: bool = True, mesh_only: bool = False
    ) -> bool:
        """Close what leads from `group` to the rest and, if `both_ways`, what leads back.

        Return whether anything was open that is closed now.
        """
        closed = self._mesh_closed if mesh_only else self._closed
        before = sum(map(sum, closed))
        for inside in range(self._size):
            for outside in range(self._size):
                if inside in group and outside not in group:
                    closed[inside][outside] = True
                    if both_ways:
                        closed[outside][inside] = True
        return sum(map(sum, closed)) > before

    def bridge(self, one: Collection[int], other: Collection[int]) -> bool:
        """Close all links between the two groups; whoever is in neither still sees both.

        Return whether anything was open that is closed now.
        """
        before = sum(map(sum, self._closed))
        for left in sorted(one):
            for right in sorted(other):
                self._closed[left][right] = self._closed[right][left] = True
        return sum(map(sum, self._closed)) > before

    def open_all(self) -> bool:
        """Undo all cuts but those of single links; return whether there were any."""
        rows = (*self._closed, *self._mesh_closed)
        was_closed = any(map(any, rows))
        for row in rows:
            row[:] = [False] * self._size
        return was_closed

    def mend(self) -> None:
        """Undo the cuts of single links, too."""
        self.open_all()
        self._pair_until.clear()

    def calm(self) -> None:
        """Good weather from now on; what is under way still arrives when it does."""
        self.weather = replace(self.weather, loss=0.0, duplication=0.0, slow=0.0)
