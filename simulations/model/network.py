"""The simulated network between machines: cuts in either direction, loss, duplication, delay.

Invariant: a frame arrives only if its direction is open at the moment of arrival.
"""

from __future__ import annotations

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
        self.weather = weather

    def passes(self, source: int, target: int) -> bool:
        """Whether frames from `source` reach `target` at present."""
        return not self._closed[source][target]

    def connects(self, one: int, other: int) -> bool:
        """Whether both directions are open: what TCP, etcd and k3s need."""
        return not (self._closed[one][other] or self._closed[other][one])

    def send(self, source: int, target: int, deliver: Callable[[], None]) -> None:
        """Deliver once, twice or not at all, at once or late, if the link is open then."""
        rng, weather = self._rng, self.weather
        copies = 2 if weather.duplication and rng.random() < weather.duplication else 1
        for _ in range(copies):
            if weather.loss and rng.random() < weather.loss:
                continue
            delay_s = rng.uniform(*weather.latency_s)
            if weather.slow and rng.random() < weather.slow:
                # Reordering: most of the slow ones are late by seconds, a few by a minute.
                delay_s = rng.uniform(0.1, weather.slow_s if rng.random() < 0.2 else 3.0)

            def arrive() -> None:
                if self.passes(source, target):
                    deliver()

            self._timeline.after(delay_s, arrive)

    def separate(self, group: Collection[int], *, both_ways: bool = True) -> None:
        """Close what leads from `group` to the rest and, if `both_ways`, what leads back."""
        for inside in range(self._size):
            for outside in range(self._size):
                if inside in group and outside not in group:
                    self._closed[inside][outside] = True
                    if both_ways:
                        self._closed[outside][inside] = True

    def bridge(self, one: Collection[int], other: Collection[int]) -> None:
        """Close all links between the two groups; whoever is in neither still sees both."""
        for left in sorted(one):
            for right in sorted(other):
                self._closed[left][right] = self._closed[right][left] = True

    def open_all(self) -> None:
        """Undo all cuts."""
        for row in self._closed:
            row[:] = [False] * self._size

    def calm(self) -> None:
        """Good weather from now on; what is under way still arrives when it does."""
        self.weather = replace(self.weather, loss=0.0, duplication=0.0, slow=0.0)
