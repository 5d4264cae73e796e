"""What the log says about lasting things: what the node waits for, and what is wrong.

Pure. Each is told when it changes. That the node waits is told again every minute, so that the end
of a log says how things stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from meshd.events import Health
from meshd.observe import span

AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Line:
    """One line for the log."""

    level: Literal["info", "warning", "error"]
    event: str
    fields: dict[str, object]


class Telling:
    """Remembers what was told last."""

    def __init__(self) -> None:
        self._waiting: str | None = None
        self._waits_since: float | None = None
        self._changed_at = self._told_at = 0.0
        self._wrong: dict[str, str] = {}

    def lines(self, waiting: str | None, health: Sequence[Health], now: float) -> list[Line]:
        """Return what is to be said now.

        Args:
            waiting: what the node waits for, or None.
            health: all that is wrong.
            now: seconds.
        """
        return [*self._about_waiting(waiting, now), *self._about_health(health)]

    def _about_waiting(self, waiting: str | None, now: float) -> Iterator[Line]:
        if waiting != self._waiting:
            self._changed_at = now
        if waiting is None:
            if self._waits_since is not None:
                took = span(now - self._waits_since)
                text = f"this node is where it should be, after {took}"
                yield Line("info", "steady", {"text": text})
            self._waits_since = self._waiting = None
            return
        if self._waits_since is None:
            self._waits_since = now
        if waiting == self._waiting and now - self._told_at < AGAIN_S:
            return
        self._waiting, self._told_at = waiting, now
        yield Line("info", "waiting", {"text": waiting, "for": span(now - self._changed_at)})

    def _about_health(self, health: Sequence[Health]) -> Iterator[Line]:
        """Items of one code are told together: a lost server and another are one sentence."""
        wrong: dict[str, list[Health]] = {}
        for item in health:
            wrong.setdefault(item.code, []).append(item)
        for code in [code for code in self._wrong if code not in wrong]:
            yield Line("info", "mended", {"code": code, "text": self._wrong.pop(code)})
        for code, items in wrong.items():
            text = "; ".join(item.message for item in items)
            level: Literal["warning", "error"] = (
                "error" if any(item.severity == "error" for item in items) else "warning"
            )
            if text != self._wrong.get(code):
                self._wrong[code] = text
                yield Line(level, "health", {"code": code, "text": text, "fix": items[0].fix})
