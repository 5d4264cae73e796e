"""How the starts of k3s go: whether it ends again and again, or runs and gets nowhere. Pure.

What is said must not change at every restart: each change is told to all other nodes.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshd.cluster.complaints import quoted
from meshd.cluster.hostinit import Held

ENDS_MIN = 3
"""So many ends without having been ready between are no accident."""

RUNS_S = 30.0
"""A k3s that runs for so long does not end for the reason it did before. A guess."""

SILENT_S = 120.0
"""A guess: a healthy k3s is ready sooner on all but the slowest cards. Only words depend on it."""

WORDS_KEPT_S = 60.0


class Course:
    """k3s on this node since the daemon started."""

    def __init__(self) -> None:
        self._ends_before: int | None = None  # Ends counted when it was last ready, or first seen.
        self._ends = 0
        self._pid: int | None = None
        self._since = 0.0
        self._was_well = False
        self._last_line = ""
        self._words = ""
        self._words_at = float("-inf")

    def look(self, held: Held, lines: Iterable[str], now: float) -> None:
        """Take a look at k3s and what it wrote since the last one."""
        if self._ends_before is None or held.exits < self._ends_before:  # Another incarnation.
            self._ends_before = held.exits
        self._ends = held.exits
        if held.pid != self._pid:
            self._pid, self._since, self._was_well = held.pid, now, False
        for line in lines:
            self._last_line = line

    def is_well(self, now: float) -> None:
        """Take note that k3s is ready."""
        self._ends_before, self._since, self._was_well = self._ends, now, True

    def loops(self, now: float) -> bool:
        """Whether it ended again and again without being ready, and did not run for long since."""
        ends = 0 if self._ends_before is None else self._ends - self._ends_before
        runs = self._pid is not None and now - self._since >= RUNS_S
        return ends >= ENDS_MIN and not runs

    def hangs_s(self, now: float) -> float:
        """Return how long it has run without having been ready, as far as was seen; else 0."""
        return 0.0 if self._pid is None or self._was_well else now - self._since

    def silence(self, now: float) -> str | None:
        """Return its last words, if it runs for long and is not ready. They change slowly."""
        if self._pid is None or now - self._since < SILENT_S:
            return None
        if now - self._words_at >= WORDS_KEPT_S:
            self._words, self._words_at = quoted(self._last_line) or "nothing", now
        return self._words
