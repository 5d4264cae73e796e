"""A reset that must not go on: somebody goes before it, or a server that was to be dead is back."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio

from meshd.cluster import reset
from meshd.cluster.hostinit import Held
from meshd.cluster.intent import Stage
from meshd.cluster.reset import Around
from meshd.events import Event
from tests.cluster.bench import N1, N2, N3, surroundings
from tests.cluster.test_reset import BEFORE, INTENT, OLD, Crash, Daemon, Disk, life


@pytest.mark.parametrize("stage", ["asked", "stopped", "copied"])
async def test_a_reset_that_touched_nothing_gives_way(tmp_path: Path, stage: Stage) -> None:
    disk = Disk(tmp_path)
    rivals = (replace(BEFORE, rival="n1"), replace(BEFORE, epoch=1, join=("10.0.0.11",)))
    for number, order in enumerate(rivals):
        daemon = Daemon(disk)
        daemon.begin(msgspec.structs.replace(INTENT, stage=stage, at_ms=number))
        assert await life(disk, daemon, order) == []
        assert (disk.database.read_bytes(), daemon.outcome()) == (OLD, "gave way")
    assert disk.launches == []


async def test_a_reset_gives_way_to_a_server_that_was_to_be_dead_and_is_back(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    assert await life(disk, daemon, replace(BEFORE, heard=(N3,))) == []
    assert (disk.launches, disk.database.read_bytes(), daemon.outcome()) == ([], OLD, "gave way")
    assert daemon.last is not None
    assert "n3-cccccccc, which was to be dead, is heard again" in daemon.last.why


async def test_after_a_restart_it_listens_for_a_while_before_it_touches_anything(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path)
    Daemon(disk).begin(INTENT)
    later = Daemon(disk)
    send, receive = trio.open_memory_channel[Event](1)
    async with send, receive:
        around = Around(order=BEFORE, surroundings=surroundings(N2), events=send)
        later._not_before = 1e9
        waiting = await later.advance(around)
        assert waiting is not None
        assert "a moment to hear" in waiting.sentence
        assert disk.stops == 0
        back = Around(
            order=replace(BEFORE, heard=(N1,)), surroundings=surroundings(N2), events=send
        )
        assert await later.advance(back) is None
    assert (later.outcome(), disk.stops) == ("gave way", 0)


async def test_one_that_may_have_changed_the_database_puts_it_back_before_it_gives_way(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path)
    disk.fails = 1
    daemon = Daemon(disk, crash_at=5)  # Back at `copied`, after a first attempt.
    daemon.begin(INTENT)
    with pytest.raises(Crash):
        await life(disk, daemon)
    assert disk.database.read_bytes() == b"half"
    again = Daemon(disk)
    assert again.intent is not None
    assert (again.intent.stage, again.intent.attempt) == ("copied", 1)
    assert await life(disk, again, replace(BEFORE, rival="n1")) == []
    assert (disk.epoch, disk.database.read_bytes(), again.outcome()) == (0, OLD, "failed")


async def test_one_that_was_cut_short_is_undone_if_something_else_was_decided_since(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path)
    disk.hangs = 1
    daemon = Daemon(disk, crash_at=4)
    daemon.begin(INTENT)
    with pytest.raises(Crash):
        await life(disk, daemon)
    again = Daemon(disk)
    assert again.intent is not None
    assert again.intent.stage == "running"
    order = replace(BEFORE, epoch=1, join=("10.0.0.11",))
    assert await life(disk, again, order) == []
    assert (disk.epoch, disk.database.read_bytes(), again.outcome()) == (0, OLD, "failed")
    assert again.last is not None
    assert again.last.why == "another node resets the membership"


@pytest.mark.parametrize("epoch", [2, 5])
async def test_one_that_skips_numbers_gives_way_to_any_other_of_its_chain(
    tmp_path: Path, epoch: int
) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(msgspec.structs.replace(INTENT, base=1, epoch=epoch))
    assert await life(disk, daemon, replace(BEFORE, epoch=2)) == []
    assert (disk.launches, daemon.outcome()) == ([], "gave way")


async def test_a_server_that_answers_again_stops_it_unless_two_resets_are_chosen_between(
    tmp_path: Path,
) -> None:
    for number, (rivals, outcome) in enumerate((((), "gave way"), (INTENT.dead[1:], "done"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        disk = Disk(folder)
        daemon = Daemon(disk)
        daemon.begin(msgspec.structs.replace(INTENT, rivals=rivals))
        await life(disk, daemon, replace(BEFORE, serving=("n1",)))
        assert daemon.outcome() == outcome


async def test_a_rival_that_is_heard_again_stops_it(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    seats = BEFORE.plan.seats if BEFORE.plan is not None else ()
    daemon.begin(msgspec.structs.replace(INTENT, dead=(), rivals=seats[2:]))
    assert await life(disk, daemon, replace(BEFORE, heard=(N3,))) == []
    assert (disk.launches, daemon.outcome()) == ([], "gave way")


async def test_one_that_another_ended_before_it_served_is_over(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(msgspec.structs.replace(INTENT, stage="reset"))
    assert await life(disk, daemon, replace(BEFORE, epoch=2, join=("10.0.0.11",))) == []
    assert daemon.outcome() == "overtaken"
    assert daemon.last is not None
    assert daemon.last.why == "the reset of epoch 2 holds instead"


class Slow(Disk):
    """K3s is done at the second look."""

    looks = 0

    def look(self) -> Held:
        if not self.launches:
            return super().look()
        self.looks += 1
        return replace(self.held, pid=8, exits=0) if self.looks == 1 else self.held


async def test_what_was_done_at_the_last_moment_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reset, "ATTEMPT_S", 45.0)  # The second look is 60 s after the start.
    disk = Slow(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    assert len(await life(disk, daemon)) == 1
    assert (len(disk.launches), disk.looks > 1, daemon.outcome()) == (1, True, "done")


async def test_a_copy_that_is_gone_is_not_taken_for_one_that_was_put_back(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(msgspec.structs.replace(INTENT, stage="undoing", attempt=1, why="it failed"))
    send, receive = trio.open_memory_channel[Event](1)
    async with send, receive:
        around = Around(order=BEFORE, surroundings=surroundings(N2), events=send)
        waiting = await daemon.advance(around)
    assert waiting is not None
    assert "the copy of the database is gone" in waiting.sentence
    assert daemon.intent is not None


async def test_a_database_on_a_disk_of_its_own_is_not_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path).endswith("db/etcd"))
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    assert await life(disk, daemon) == []
    assert (disk.launches, disk.database.read_bytes(), daemon.outcome()) == ([], OLD, "failed")
    assert daemon.last is not None
    assert "lies on another disk" in daemon.last.why
