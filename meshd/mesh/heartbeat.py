"""Whether a neighbour lives, and how far away it is: one link's heartbeats. No I/O, no clock.

Both ends send one heartbeat a second. The end that dialled keeps the rhythm and the other answers
at once, so that its heartbeat carries TCP's acknowledgement and a second costs three packets
instead of four. All links of a node beat at the same whole seconds, so that it wakes once for all:
a wake-up with cold caches costs more than the frame. Silence makes suspect after 3 s and ends the
link after 6 s. A watcher that was itself late does not accuse (Lifeguard, arXiv:1707.00788): see
`excuse`.
"""

from __future__ import annotations

from collections import deque
from math import ceil

from meshd.mesh.wire import Heartbeat
from meshd.schema import LinkState

HEARTBEAT_INTERVAL_S = 1.0
LEADER_PAUSE_S = 0.5  # At least; the next whole second after it is the time.
ANSWERER_PAUSE_S = 1.25  # Only if there is nothing to answer; so 2.25 s at most.
SUSPECT_AFTER_S = 3.0
LOST_AFTER_S = 6.0
RTT_WINDOW = 15  # Round trips, so seconds, that one figure is made of.
LATE_S = 0.5

_RTT_STEPS = (1, 2, 5)


def rtt_class_ms(rtt_ms: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, … that is not below `rtt_ms`."""
    scale = 1
    while True:
        for step in _RTT_STEPS:
            if rtt_ms <= step * scale:
                return step * scale
        scale *= 10


class LinkWatch:
    """The heartbeats of one link. Times are seconds on any one clock.

    Args:
        now: when the link came up; counts as a sign of life.
        leads: whether this end keeps the rhythm.
    """

    def __init__(self, now: float, *, leads: bool) -> None:
        self._pause = LEADER_PAUSE_S if leads else ANSWERER_PAUSE_S
        self._leads = leads
        self._born = now
        self._heard_at = now
        self._sent_at = now - HEARTBEAT_INTERVAL_S
        self._number = 0
        self._sent: deque[tuple[int, float]] = deque(maxlen=8)
        self._newest = 0
        self._newest_at = now
        self._round_trips: deque[float] = deque(maxlen=RTT_WINDOW)
        self._unjudged = 0
        self._rtt_ms: float | None = None
        self._reported: tuple[LinkState, int | None] = ("alive", None)

    @property
    def rtt_ms(self) -> float | None:
        """The round trip last reported, in milliseconds."""
        return self._rtt_ms

    def deadline(self) -> float:
        """Return when to look at this link again."""
        return min(self._beat_at(), self._next_judgement())

    def _beat_at(self) -> float:
        """Return when the next heartbeat is due: at whole seconds, so that all links wake at once.

        The first of the end that leads goes out when the link comes up.
        """
        if self._leads and self._number == 0:
            return self._born
        return float(ceil(self._sent_at + self._pause))

    def _next_judgement(self) -> float:
        after = SUSPECT_AFTER_S if self._reported[0] == "alive" else LOST_AFTER_S
        return self._heard_at + after

    def due(self, now: float) -> bool:
        """Whether a heartbeat should be sent."""
        return now >= self._beat_at()

    def next_heartbeat(self, now: float, *, wall_ms: int | None = None) -> Heartbeat:
        """Return the heartbeat to send now, with this node's wall clock if it is to be told."""
        self._number = self._number % 65535 + 1
        self._sent_at = now
        self._sent.append((self._number, now))
        held = max(0, int((now - self._newest_at) * 1e6)) if self._newest else 0
        return Heartbeat(number=self._number, echo=self._newest, held_us=held, wall_ms=wall_ms)

    def heard(self, now: float) -> None:
        """Take any frame as a sign of life."""
        self._heard_at = max(now, self._heard_at)

    def take(self, heartbeat: Heartbeat, now: float) -> bool:
        """Take the peer's heartbeat; True if it should be answered at once."""
        self.heard(now)
        self._newest, self._newest_at = heartbeat.number, now
        for number, at in self._sent:
            if number == heartbeat.echo:
                self._add_round_trip(max(0.0, (now - at) * 1e3 - heartbeat.held_us / 1e3))
                break
        return not self._leads and now - self._sent_at >= HEARTBEAT_INTERVAL_S / 2

    def _add_round_trip(self, rtt_ms: float) -> None:
        self._round_trips.append(rtt_ms)
        self._unjudged += 1
        if self._rtt_ms is None or self._unjudged >= RTT_WINDOW:
            self._unjudged = 0
            self._rtt_ms = min(self._round_trips)

    def excuse(self, late_s: float) -> None:
        """Forgive `late_s` seconds of silence: this end was not running to hear anything."""
        if late_s > LATE_S:
            self._heard_at += late_s

    def silent(self, now: float) -> bool:
        """Whether the link should be given up."""
        return now - self._heard_at >= LOST_AFTER_S

    def observe(self, now: float) -> tuple[LinkState, float | None] | None:
        """Return the link's state and round trip if either is news, else None."""
        state: LinkState = "suspect" if now - self._heard_at >= SUSPECT_AFTER_S else "alive"
        rtt_class = self._steady_class()
        if (state, rtt_class) == self._reported:
            return None
        self._reported = (state, rtt_class)
        return state, self._rtt_ms

    def _steady_class(self) -> int | None:
        """Return the round trip's class; a figure close to a border does not cross it."""
        held = self._reported[1]
        if self._rtt_ms is None:
            return held
        if held is not None and held / 4 < self._rtt_ms < held * 1.5:
            return held
        return rtt_class_ms(self._rtt_ms)
