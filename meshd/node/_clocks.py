"""Whether this machine's wall clock may start k3s: judged by those of the voters connected to it.

k3s' certificates are valid from its first start on, so a k3s started in the future cannot be joined
and one started in the past is refused. Nothing else depends on a wall clock. Invariant: a wrong
clock only delays a start; it never ends a k3s that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from ledger import Moment, NodeId
from meshd.events import Health
from meshd.node._directory import Directory
from meshd.schema import CLOCK_MIN_MS
from roles import is_willing

APART_MAX_MS = 3_600_000
"""An hour. k3s' own certificates begin at its start, so a joiner's clock may not lie before it."""

WARN_MS = 60_000
RECHECK_S = 2.0
"""How often a clock that was found wrong is read again."""

_UNITS = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """What the clocks seen from here say.

    Args:
        hold: why k3s must not be started here now, or None.
        wrong: the nodes whose clock is not the voters', this one included.
        health: what to tell the operator.
    """

    hold: str | None = None
    wrong: frozenset[NodeId] = frozenset()
    health: tuple[Health, ...] = ()


def judge_clocks(directory: Directory, now: Moment) -> Clocks:
    """Return what is to be made of the clocks of this node and of its neighbours, at `now`."""
    shown = {
        known.node: known.clock_epoch_ms + round(now.at * 1000)
        for known in directory.others()
        if known.connected and known.clock_epoch_ms is not None
    }
    voters = {node: ms for node, ms in shown.items() if _votes(directory, node)}
    if _votes(directory, directory.me):
        voters[directory.me] = now.wall_ms
    set_once = {node: ms for node, ms in voters.items() if ms >= CLOCK_MIN_MS}
    middle = round(median(set_once.values())) if set_once else None
    wrong = frozenset(
        node
        for node, ms in (shown | {directory.me: now.wall_ms}).items()
        if ms < CLOCK_MIN_MS or (middle is not None and abs(ms - middle) > APART_MAX_MS)
    )
    if directory.me not in wrong:
        health = _others(directory, shown, now.wall_ms)
        return Clocks(wrong=wrong, health=health)
    if now.wall_ms < CLOCK_MIN_MS:
        why = "this machine's clock is before 2025, so it was never set"
        item = _error("MESH-3310", why)
    else:
        assert middle is not None
        why = _apart(directory, set_once, now.wall_ms - middle, middle)
        item = _error("MESH-3311", why)
    return Clocks(hold=f"{why}: k3s waits until it is right", wrong=wrong, health=(item,))


def in_words(span_ms: float) -> str:
    """Return a span of time in its largest whole unit: "3 hours"."""
    for size, unit in _UNITS:
        count = round(abs(span_ms) / size)
        if count >= 1:
            return f"{count} {unit}" + ("s" if count > 1 else "")
    return "less than a second"


def _votes(directory: Directory, node: NodeId) -> bool:
    candidate = directory[node].candidate
    return candidate is not None and is_willing(candidate)


def _apart(directory: Directory, voters: Mapping[NodeId, int], off_ms: int, middle: int) -> str:
    """Say how far this node's clock is off, or that nobody can tell whose is right."""
    others = ", ".join(directory.name(node) for node in voters if node != directory.me)
    agree = sum(abs(ms - middle) <= APART_MAX_MS for ms in voters.values())
    if agree == 0:
        span = max(voters.values()) - min(voters.values())
        return (
            f"the clocks of this machine and of {others} are up to {in_words(span)} apart, and no "
            "majority agrees on the time"
        )
    side = "ahead of" if off_ms > 0 else "behind"
    return f"this machine's clock is {in_words(off_ms)} {side} that of most voters ({others})"


def _others(directory: Directory, shown: Mapping[NodeId, int], wall_ms: int) -> tuple[Health, ...]:
    return tuple(
        Health(
            code="MESH-3301",
            severity="warning",
            message=f"the clock of {directory.name(node)} is {in_words(ms - wall_ms)} "
            f"{'ahead of' if ms > wall_ms else 'behind'} this node's",
            fix="set up time synchronisation on both; certificates depend on it, meshd does not",
        )
        for node, ms in sorted(shown.items())
        if abs(ms - wall_ms) > WARN_MS
    )


def _error(code: str, why: str) -> Health:
    return Health(
        code=code,
        severity="error",
        message=f"{why}: k3s is not started here",
        fix="set the clock (an NTP service does it); what waits goes on by itself",
    )
