"""Neighbours tell each other's wall clocks seldom, and know them at any time."""

from __future__ import annotations

from ledger import Instant, Moment
from meshd.events import ClockObserved
from meshd.mesh.wall_clocks import AGAIN_S, WallClocks
from meshd.mesh.wire import Heartbeat
from tests.mesh.stations import RealWorld

T_MS = 1_800_000_000_000


def moment(at: float, *, set_by_ms: int = 0) -> Moment:
    return Moment(at=Instant(at), wall_ms=T_MS + round(at * 1000) + set_by_ms)


def test_a_clock_is_told_at_first_when_it_was_set_and_once_an_hour() -> None:
    clocks = WallClocks()
    assert clocks.to_tell(moment(10.0)) == T_MS + 10_000
    assert clocks.to_tell(moment(11.0)) is None
    assert clocks.to_tell(moment(12.0, set_by_ms=900)) is None
    assert clocks.to_tell(moment(13.0, set_by_ms=1100)) == T_MS + 13_000 + 1100
    assert clocks.to_tell(moment(14.0, set_by_ms=1100)) is None
    assert clocks.to_tell(moment(13.0 + AGAIN_S, set_by_ms=1100)) is not None


def test_what_was_heard_is_news_once() -> None:
    clocks = WallClocks()
    assert clocks.heard(None, moment(5.0)) is None
    assert clocks.heard(9_000, moment(5.0)) == 4_000
    assert clocks.heard(10_500, moment(6.0)) is None  # 500 ms late: the way here.
    assert clocks.heard(9_000, moment(50.0)) == -41_000
    assert clocks.heard(2**63, moment(51.0)) is None  # No clock shows that.


def test_setting_the_own_clock_is_no_news_of_the_peers() -> None:
    clocks = WallClocks()
    assert clocks.heard(9_000, moment(5.0)) is not None
    assert clocks.heard(10_000, moment(6.0, set_by_ms=86_400_000)) is None


def test_a_heartbeat_with_a_clock_is_longer_and_an_older_reader_takes_it() -> None:
    plain = Heartbeat(number=7, echo=6, held_us=5)
    telling = Heartbeat(number=7, echo=6, held_us=5, wall_ms=T_MS)
    assert (len(plain.encode()), len(telling.encode())) == (12, 20)
    assert Heartbeat.decode(telling.encode()[4:]) == telling
    assert Heartbeat.decode(plain.encode()[4:]) == plain
    in_1900 = Heartbeat(number=7, echo=6, held_us=5, wall_ms=-5)
    assert Heartbeat.decode(in_1900.encode()[4:]).wall_ms == 0


async def test_two_real_neighbours_learn_each_others_clocks(real: RealWorld) -> None:
    one, other = await real.start("one"), await real.start("other")
    real.introduce(one, other)
    seen = await one.ear.until(ClockObserved)
    also = await other.ear.until(ClockObserved)
    assert (seen.peer, also.peer) == (other.node_id, one.node_id)
    assert abs(seen.epoch_ms - also.epoch_ms) < 60_000  # One machine, one clock.
