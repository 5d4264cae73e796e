"""A checklist with times, on stderr: live on a terminal, one line for each step elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TextIO, TypeVar

from meshd.errors import MeshdError

Found = TypeVar("Found")

POLL_S = 0.1


class Checklist:
    """Steps, each with the seconds it took and what was found.

    Args:
        out: where to show them.
        clock: seconds of a clock that never jumps.
        limit_s: the longest wait for any step; None leaves it to the steps.
    """

    def __init__(
        self,
        out: TextIO = sys.stderr,
        clock: Callable[[], float] = time.monotonic,
        limit_s: float | None = None,
    ) -> None:
        self._limit_s = limit_s
        self._out = out
        self._clock = clock
        self._live = out.isatty() and os.environ.get("TERM") != "dumb"
        self._since = clock()
        self._shown = ""

    def say(self, text: str) -> None:
        """Show a line that is no step."""
        self._clear()
        print(text, file=self._out, flush=True)

    def restart(self) -> None:
        """Count the next step from now."""
        self._since = self._clock()

    def done(self, text: str) -> float:
        """Tick a step off; return the seconds since the one before."""
        now = self._clock()
        took_s, self._since = now - self._since, now
        self._clear()
        mark = "\033[32m✓\033[0m" if self._live and "NO_COLOR" not in os.environ else "✓"
        print(f"  {mark} {text:<64} {took_s:6.1f} s", file=self._out, flush=True)
        return took_s

    def wait(
        self, what: str, find: Callable[[], Found | None], *, limit_s: float, code: str
    ) -> Found:
        """Look until `find` finds something; while looking, show `what` on a terminal.

        Raises:
            MeshdError: with `code`, if nothing was found in `limit_s` seconds.
        """
        limit_s = limit_s if self._limit_s is None else min(limit_s, self._limit_s)
        deadline = self._clock() + limit_s
        while True:
            found = find()
            if found is not None:
                return found
            if self._clock() > deadline:
                self._clear()
                raise MeshdError(
                    code,
                    f"not seen within {limit_s:.0f} s: {what}",
                    fix="the logs below say why; `meshd demo up` brings up a laboratory to look at",
                )
            self._show(f"  … {what}")
            time.sleep(POLL_S)

    def _show(self, text: str) -> None:
        if self._live:
            text = f"{text} {self._clock() - self._since:.0f} s"
            print(f"\r\033[K{text}", end="", file=self._out, flush=True)
            self._shown = text

    def _clear(self) -> None:
        if self._shown:
            print("\r\033[K", end="", file=self._out, flush=True)
            self._shown = ""
