"""What a benchmark found: figures beside their targets, as a table and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity.

    Args:
        nodes: running while it was measured.
        values: all samples, in `unit`.
        shown: which of them the target is about.
        target: the most it may be; None where there is none.
    """

    what: str
    nodes: int
    unit: str
    values: tuple[float, ...]
    shown: Literal["p50", "p95", "p99", "max"]
    target: float | None = None

    @property
    def value(self) -> float:
        """The one number of the samples that the target is about."""
        return percentile(self.values, {"p50": 50, "p95": 95, "p99": 99, "max": 100}[self.shown])

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.target is None else self.value <= self.target

    @property
    def verdict(self) -> str:
        """Met, or missed by how much; nothing without a target."""
        if self.target is None:
            return ""
        if self.is_met:
            return "met"
        over = self.value - self.target
        return f"MISSED by {over:.2g} {self.unit} ({100 * over / self.target:.0f} %)"


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile."""
    ranked = sorted(values)
    rank = max(1, -(-len(ranked) * percent // 100))
    return ranked[int(rank) - 1]


def joined(figures: Iterable[Figure]) -> tuple[Figure, ...]:
    """Put the samples of equal figures together."""
    found: dict[tuple[str, int], Figure] = {}
    for one in figures:
        key = (one.what, one.nodes)
        before = found[key].values if key in found else ()
        found[key] = replace(one, values=before + one.values)
    return tuple(found.values())


def table(figures: Sequence[Figure]) -> str:
    """Return the figures beside their targets, with the spread of their samples, for people."""
    lines = [
        f"{'':<40}{'nodes':>5}  {'measured':>20}  {'least - median - most':>24}  {'target':>7}"
    ]
    for one in figures:
        measured = f"{one.shown} {one.value:.3g} {one.unit}"
        least, most = min(one.values), max(one.values)
        spread = f"{least:.3g} - {statistics.median(one.values):.3g} - {most:.3g}"
        target = "" if one.target is None else f"{one.target:g}"
        lines.append(
            f"{one.what:<40}{one.nodes:>5}  {measured:>20}  {spread:>24}  {target:>7}"
            f"  {one.verdict}"
        )
    return "\n".join(line.rstrip() for line in lines)


def as_json(figures: Sequence[Figure], load: Mapping[str, float]) -> dict[str, Any]:
    """Return everything measured, and where.

    Args:
        figures: all of them.
        load: the load average, by when.
    """
    return {
        "api_version": "meshd/v1",
        "kind": "Bench",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load": dict(load),
        },
        "figures": [
            asdict(one)
            | {"value": one.value, "median": statistics.median(one.values), "met": one.is_met}
            for one in figures
        ],
    }
