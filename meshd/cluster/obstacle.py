"""Why k3s is not started, as a sentence for the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """`failed` does not pass by itself."""

    state: Literal["waiting", "failed"]
    sentence: str


def waiting(sentence: str) -> Obstacle:
    """Return what k3s waits for."""
    return Obstacle(state="waiting", sentence=sentence)


def failed(sentence: str) -> Obstacle:
    """Return what somebody has to mend first."""
    return Obstacle(state="failed", sentence=sentence)


def refused(error: OSError) -> Obstacle:
    """Return what the disk refuses, as an obstacle."""
    where = f" at {error.filename}" if error.filename else ""
    return Obstacle(state="failed", sentence=f"{error.strerror or error}{where}")
