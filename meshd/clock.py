"""The only reader of clocks.

Rules count on CLOCK_BOOTTIME, which runs on while a machine sleeps.
"""

from __future__ import annotations

import time

from ledger import Instant, Moment


def read_moment() -> Moment:
    """Return the time now, for `Node.handle`."""
    return Moment(at=read_instant(), wall_ms=time.time_ns() // 1_000_000)


def read_instant() -> Instant:
    """Return seconds on CLOCK_BOOTTIME."""
    return Instant(time.clock_gettime(time.CLOCK_BOOTTIME))
