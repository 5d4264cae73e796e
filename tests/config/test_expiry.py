"""Until when a token lets a machine in."""

from datetime import date

import pytest

from meshd.config import day_of, judge_expiry, read_expiry
from meshd.errors import UsageError

TODAY = date(2026, 2, 27)
NOON_MS = 1_772_193_600_000  # 2026-02-27T12:00:00Z
SET_MS = 1_735_689_600_000  # 2025-01-01


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0d", TODAY),
        ("2d", date(2026, 3, 1)),
        (" 7d ", date(2026, 3, 6)),
        ("2w", date(2026, 3, 13)),
        ("2026-02-27", TODAY),
        ("2149-06-06", date(2149, 6, 6)),
    ],
)
def test_days_weeks_and_dates_are_read(text: str, expected: date) -> None:
    assert read_expiry(text, TODAY) == expected


@pytest.mark.parametrize(
    "text", ["", "7", "7h", "-1d", "tomorrow", "2026-02-30", "99999w", "2149-06-07", "1969-12-31"]
)
def test_what_is_no_time_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_expiry(text, TODAY)
    assert caught.value.code == "MESH-1072"
    assert "7d" in caught.value.fix


def test_a_day_that_is_over_is_refused() -> None:
    with pytest.raises(UsageError, match="today is 2026-02-27"):
        read_expiry("2026-02-26", TODAY)


def test_the_day_is_that_of_greenwich() -> None:
    assert day_of(NOON_MS) == TODAY
    assert day_of(NOON_MS + 12 * 3_600_000 - 1) == TODAY
    assert day_of(NOON_MS + 12 * 3_600_000) == date(2026, 2, 28)


@pytest.mark.parametrize(
    ("expires", "wall_ms", "verdict"),
    [
        (None, 0, "valid"),
        (TODAY, NOON_MS, "valid"),
        (date(2026, 2, 26), NOON_MS, "expired"),
        (TODAY, SET_MS - 1, "unknown"),
        (TODAY, SET_MS, "valid"),
    ],
)
def test_a_token_is_valid_to_the_end_of_its_last_day_and_an_unset_clock_cannot_judge(
    expires: date | None, wall_ms: int, verdict: str
) -> None:
    assert judge_expiry(expires, wall_ms=wall_ms, wall_ms_min=SET_MS) == verdict
