"""Simulated time: one queue of what happens next; of equal instants, what was scheduled first."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Timeline:
    """Runs actions in the order of their instants; nothing else moves time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Run `action` `delay_s` seconds from now; 0 means after what is already due now."""
        assert delay_s >= 0
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now + delay_s, self._scheduled, action))

    def run_until(self, end: float) -> None:
        """Run everything that is due up to and including `end`, which then is the time."""
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _, action = heapq.heappop(queue)
            action()
        self.now = end
