"""Until when a token lets a machine in: a date, the last day (UTC) on which it does.

Checked by the machine that holds the token, before it first joins. It guards against a forgotten
token; it is no lock: the secret does not expire, and whoever can read it can do without this check.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from meshd.errors import UsageError

Verdict = Literal["valid", "expired", "unknown"]

DATE_BYTES = 2
_EPOCH = date(1970, 1, 1)
_DAYS_MAX = (1 << 8 * DATE_BYTES) - 1  # To the year 2149.
_PERIOD = re.compile(r"(\d{1,5})([dw])")


def read_expiry(text: str, today: date) -> date:
    """Return the last day that `7d`, `2w` or `2030-12-31` names, counted from `today`.

    Raises:
        UsageError: it is none of these, or lies in the past.
    """
    period = _PERIOD.fullmatch(text.strip())
    try:
        if period is None:
            last = date.fromisoformat(text.strip())
        else:
            last = today + timedelta(days=int(period[1]) * (7 if period[2] == "w" else 1))
        encode_date(last)
    except (ValueError, OverflowError):
        raise UsageError(
            "MESH-1072",
            f"--expires {text!r} is no time to expire at",
            fix="write days or weeks as 7d or 2w, or the last day as 2030-12-31",
        ) from None
    if last < today:
        raise UsageError(
            "MESH-1072",
            f"--expires {text!r}: that day is over, today is {today}",
            fix="name a later one, or leave --expires out for a token that never expires",
        )
    return last


def encode_date(day: date) -> bytes:
    """Return the days since 1970 as two bytes; raises ValueError outside of 1970 to 2149."""
    days = (day - _EPOCH).days
    if not 0 <= days <= _DAYS_MAX:
        raise ValueError(day)
    return days.to_bytes(DATE_BYTES, "big")


def decode_date(content: bytes) -> date:
    """Return the date of two bytes."""
    return _EPOCH + timedelta(days=int.from_bytes(content, "big"))


def day_of(wall_ms: int) -> date:
    """Return the day (UTC) of a wall clock."""
    return datetime.fromtimestamp(wall_ms / 1000, tz=UTC).date()


def judge_expiry(expires: date | None, *, wall_ms: int, wall_ms_min: int) -> Verdict:
    """Say whether a token still lets a machine in.

    Args:
        expires: its last day, or None for never.
        wall_ms: this machine's wall clock.
        wall_ms_min: a clock before this was never set, and can judge nothing.
    """
    if expires is None:
        return "valid"
    if wall_ms < wall_ms_min:
        return "unknown"
    return "valid" if day_of(wall_ms) <= expires else "expired"
