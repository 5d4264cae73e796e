"""What keeps secrets out of the log: those it was told, in part too, and what looks like one.

Invariant: no `WINDOW` consecutive characters of a told secret leave it, in any case, nor of its
base64 and hexadecimal forms.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping, Sequence

HIDDEN = "(hidden)"
WINDOW = 16
"""A guess: long enough that no other text has it by chance, short enough that what is left of a
token (13 bytes at most) is of no use to anyone."""
SHORT_MIN = 6
"""A told secret shorter than that would take ordinary words out of every line."""

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
"""What JSON has."""

# Secrets that nobody told: (pattern, what stays).
_LOOKS_SECRET = (
    (re.compile(r"meshd1[0-9a-z]{12,}", re.IGNORECASE), HIDDEN),
    (re.compile(r"K10[0-9a-f]{64}::\S+"), HIDDEN),  # k3s' full tokens.
    (re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+", re.IGNORECASE), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END|\Z)", re.DOTALL), HIDDEN),
    # EdgeVPN's tokens, sealed values, certificates: nothing that long is for people.
    (re.compile(r"[A-Za-z0-9+/=_-]{160,}"), HIDDEN),
    (
        re.compile(r"(?<![\w-])(--?[a-z0-9-]*(?:token|endpoint|password|secret)[= ])\S+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(://[^/\s:@]+:)[^@\s]+@"), rf"\1{HIDDEN}@"),  # A password in a URL.
)


class Redaction:
    """Takes secrets out of values on their way to the log."""

    def __init__(self) -> None:
        self._windows: set[str] = set()
        self._short: set[str] = set()

    def hide(self, secret: str | bytes) -> None:
        """Let no part of `secret` through from now on."""
        for form in _forms(secret):
            folded = form.lower()
            if len(folded) >= WINDOW:
                last = len(folded) - WINDOW
                self._windows.update(folded[at : at + WINDOW] for at in range(last + 1))
            elif len(folded) >= SHORT_MIN and isinstance(secret, str):
                self._short.add(folded)

    def text(self, text: str) -> str:
        """Return `text` with `(hidden)` in the place of every secret."""
        for pattern, rest in _LOOKS_SECRET:
            text = pattern.sub(rest, text)
        folded = text.lower()
        if len(folded) != len(text):  # A few letters have lower cases of other lengths.
            text = folded
        spans = [
            (at, at + WINDOW)
            for at in range(len(folded) - WINDOW + 1)
            if folded[at : at + WINDOW] in self._windows
        ]
        spans += [
            found.span() for one in self._short for found in re.finditer(re.escape(one), folded)
        ]
        return _without(text, sorted(spans))

    def value(self, value: object) -> Plain:
        """Return `value` as JSON has it, without secrets; raw bytes are secret by their kind."""
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)  # JSON has no infinity.
        if isinstance(value, bytes | bytearray | memoryview):
            return f"({len(value)} bytes)"
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(one) for key, one in value.items()}
        if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
            items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
            return [self.value(one) for one in items]
        return self.text(str(value))


def _forms(secret: str | bytes) -> Iterator[str]:
    """Yield the ways a secret may be written: as it is, hexadecimal, base64 inside something."""
    raw = secret.encode() if isinstance(secret, str) else secret
    if isinstance(secret, str):
        yield secret
    yield raw.hex()
    for start in range(3):  # What stands before it shifts the letters: three ways.
        encoded = base64.b64encode(raw[start:]).decode().rstrip("=")
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """Return `text` with each run of overlapping or touching spans, in order, replaced."""
    kept: list[str] = []
    end = 0
    for start, stop in spans:
        if start > end or not kept:
            kept += [text[end:start], HIDDEN]
        end = max(end, stop)
    return "".join(kept) + text[end:]
