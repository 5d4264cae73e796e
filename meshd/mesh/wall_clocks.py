"""What both ends of a link know of each other's wall clocks. No I/O, no clock.

A node tells its wall clock in the first heartbeat of a link, when it was set, and once an hour, so
an idle link pays 8 bytes an hour. Kept is what a clock showed when CLOCK_BOOTTIME here was 0: from
that it is known at any time, and setting one of the two clocks does not change what is kept of the
other.
"""

from __future__ import annotations

from ledger import Moment

MOVED_MS = 1000
"""By how much a clock must have been set to be told at once. Round trips are far below it."""

AGAIN_S = 3600.0
"""Even without time synchronisation two CLOCK_BOOTTIME drift apart by under a second meanwhile."""

WALL_MAX_MS = 2**63 - 1  # As the ledger's stamps.


class WallClocks:
    """The wall clocks of the two ends of one link."""

    def __init__(self) -> None:
        self._told: tuple[int, float] | None = None  # Our epoch, and when it was told.
        self._reported: int | None = None

    def to_tell(self, now: Moment) -> int | None:
        """Return this node's wall clock if the next heartbeat is to tell it."""
        epoch = epoch_ms(now.wall_ms, now)
        if self._told is not None:
            told, at = self._told
            if abs(epoch - told) <= MOVED_MS and now.at - at < AGAIN_S:
                return None
        self._told = epoch, now.at
        return now.wall_ms

    def heard(self, wall_ms: int | None, now: Moment) -> int | None:
        """Take what the peer's heartbeat told; return its epoch if that is news."""
        if wall_ms is None or wall_ms > WALL_MAX_MS:
            return None
        epoch = epoch_ms(wall_ms, now)
        if self._reported is not None and abs(epoch - self._reported) <= MOVED_MS:
            return None
        self._reported = epoch
        return epoch


def epoch_ms(wall_ms: int, now: Moment) -> int:
    """Return what a wall clock that shows `wall_ms` now showed when CLOCK_BOOTTIME here was 0."""
    return wall_ms - round(now.at * 1000)
