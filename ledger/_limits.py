"""How much a ledger may hold, and how fast others may fill it. The figures are guesses with room.

A network of 30 nodes was measured to hold a few hundred entries of about 300 bytes each.
"""

from __future__ import annotations

from ledger._identity import Instant

KIB = 1024
MIB = 1024 * KIB

FRAME_MAX_BYTES = 256 * KIB
FRAME_GOAL_BYTES = 128 * KIB  # What is sent: checking it keeps a slow core busy for under 0.1 s.

AUTHORS_MAX = 4096
AUTHOR_KEYS_MAX = 1000  # A tombstone counts.
AUTHOR_MAX_BYTES = 4 * MIB  # Of encoded entries.

PUSHED_PER_S = 50.0  # Of one author's entries.
PUSHED_BURST = 100.0
SENT_BYTES_PER_S = 4.0 * MIB  # In answers to one peer.
SENT_BURST_BYTES = 8.0 * MIB
RECEIVED_BYTES_PER_S = 16.0 * MIB  # From one peer: an honest one sends answers and few pushes.
RECEIVED_BURST_BYTES = 64.0 * MIB
REISSUED_PER_S = 1.0  # Of this node's own registers; two nodes with one key must not race.
REISSUED_BURST = 64.0


class TokenBucket:
    """Allows `rate` per second on average and `burst` at once; starts full."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: Instant) -> None:
        assert rate > 0
        assert burst > 0
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def has(self, cost: float, now: Instant) -> bool:
        """Whether `cost` can be taken now; nothing is taken."""
        self._refill(now)
        return self._tokens >= cost

    def take(self, cost: float, now: Instant) -> bool:
        """Take `cost` if it is there."""
        if not self.has(cost, now):
            return False
        self._tokens -= cost
        return True

    def ready_at(self, cost: float, now: Instant) -> Instant:
        """Return when `take(cost)` will succeed, a hair late so that rounding cannot fail it."""
        assert cost <= self._burst
        if self.has(cost, now):
            return now
        return Instant(now + (cost - self._tokens) / self._rate + 0.001)

    def _refill(self, now: Instant) -> None:
        elapsed = max(0.0, now - self._at)
        self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        self._at = max(self._at, now)
