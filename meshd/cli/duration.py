"""Durations on the command line: `90s`, `5m`, `1h30m`."""

from __future__ import annotations

import re

import click

_FORM = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


class Duration(click.ParamType[float]):
    """Reads a duration into seconds; a plain number is seconds."""

    name = "duration"

    def convert(
        self, value: str | float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = _FORM.fullmatch(str(value))
        if not value or match is None:
            self.fail(f"{value!r} is no duration; write 90s, 5m or 1h30m", param, ctx)
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return float(hours * 3600 + minutes * 60 + seconds)


DURATION = Duration()
