"""The only reader of clocks.

Rules count on CLOCK_BOOTTIME, which runs on while a machine sleeps. The wall clock stamps what is
written for people, and is compared with those of others before k3s is started.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ledger import Instant, Moment

WALL_OFFSET_VARIABLE = "MESHD_WALL_OFFSET_FILE"
"""Names a file with a number of seconds that is added to the wall clock, read each time.

For the laboratory: the kernel gives CLOCK_REALTIME no namespace, so this is how one of its nodes
gets a wrong clock. Only meshd sees it; k3s and all other programs see the machine's clock.
"""


def read_moment() -> Moment:
    """Return the time now, for `Node.handle`."""
    wall_ms = time.time_ns() // 1_000_000
    named = os.environ.get(WALL_OFFSET_VARIABLE)
    return Moment(at=read_instant(), wall_ms=wall_ms if named is None else wall_ms + _offset(named))


def read_instant() -> Instant:
    """Return seconds on CLOCK_BOOTTIME."""
    return Instant(time.clock_gettime(time.CLOCK_BOOTTIME))


def _offset(file: str) -> int:
    """Return the milliseconds that a file says; one that is not there, or half written, says 0."""
    try:
        return round(float(Path(file).read_text(encoding="ascii")) * 1000)
    except (FileNotFoundError, ValueError):
        return 0
