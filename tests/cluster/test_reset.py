"""A reset of etcd's membership, cut short at every step, failing, refused, and undone."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from meshd.cluster import gate
from meshd.cluster.gate import read_permit, refusal
from meshd.cluster.groundwork import Surroundings
from meshd.cluster.hostinit import Exit, Held
from meshd.cluster.intent import Intent
from meshd.cluster.mark import Mark, look_at_database, read_first_start, read_mark
from meshd.cluster.plan import Launch
from meshd.cluster.reset import SUCCESS, Around, Resetting
from meshd.events import ClusterOrder, Event, K3sObserved, MembershipReset
from meshd.ports import EventSink
from tests.cluster.bench import N1, N2, N3, groundwork, k3s_paths, plan, server, surroundings
from tests.cluster.laying import begin, drop_in, lay

OLD, NEW = b"all that was written", b"all that was written, one member"
INTENT = Intent(
    cluster_id=plan().cluster_id,
    base=0,
    epoch=1,
    before=b"b" * 32,
    seats=plan().seats[1:2],
    dead=(plan().seats[0], plan().seats[2]),
    was=plan().seats[1].node_ip,
    by="anna",
    at_ms=1_795_715_760_000,
)
BEFORE = server(formed=True)
AFTER = replace(
    BEFORE,
    plan=replace(plan(), seats=plan().seats[1:2]),
    join=(),
    epoch=1,
    survivor=True,
)


@dataclass(frozen=True)
class Usage:
    """What `shutil.disk_usage` returns, as far as it is read."""

    free: int


class Crash(Exception):
    """The daemon ends here."""


class Disk:
    """One machine's disk and supervisor, which outlive the daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = k3s_paths(folder)
        self.launches: list[Launch] = []
        self.held = Held(pid=7, exits=0, last_exit=None, blocked=None, cluster=plan().cluster_id)
        self.fails = 0  # So many attempts.
        self.hangs = 0  # Likewise, before these.
        self.last_words = "panic: no space"
        self.refuses: str | None = None
        self.stops = 0
        lay(folder, N2, BEFORE)
        begin(folder)
        assert groundwork(N2, folder).note_begun()
        self.database.write_bytes(OLD)

    @property
    def database(self) -> Path:
        return self.paths.server / "db/etcd/member/snap"

    @property
    def flag(self) -> Path:
        return self.paths.server / "db/reset-flag"

    @property
    def epoch(self) -> int:
        mark = read_mark(self.paths.server)
        assert isinstance(mark, Mark)
        return mark.epoch

    async def extend(self, cluster: str, until: object) -> None:
        raise AssertionError("no lease after DONE")

    async def stop(self, cluster: str) -> None:
        assert read_permit(self.folder / "state") is None, "nobody else starts it meanwhile"
        self.stops += 1
        self.held = replace(self.held, pid=None, down=True, stopping=True)

    async def ensure(self, launch: Launch, *, replaces: int | None = None) -> None:
        """Run to the end at once, as k3s would: the flag first, then the work."""
        if self.launches[-1:] == [launch]:
            return
        self.launches.append(launch)
        if self.refuses is not None:
            self.held = replace(self.held, refused=self.refuses)
            return
        assert replaces is None
        assert (launch.once, launch.formed) == (True, True)
        assert launch.argv[-1] == "--cluster-reset"
        assert not self.flag.exists(), "k3s would refuse"
        assert self.copy().read_bytes() == OLD, "the copy is complete before the database changes"
        self.flag.touch()
        self.database.parent.mkdir(parents=True, exist_ok=True)  # Moved aside for a snapshot.
        if self.hangs:
            self.hangs -= 1
            self.held = replace(self.held, pid=8, exits=0, down=False, stopping=False)
            return
        lines: tuple[str, ...] = (SUCCESS,)
        if self.fails:
            self.fails -= 1
            self.database.write_bytes(b"half")
            lines = (self.last_words,)
        else:
            self.database.write_bytes(NEW)
        ended = Exit(code=0, signal=None, lines=lines)
        self.held = replace(self.held, pid=None, exits=1, last_exit=ended, down=False)

    def look(self) -> Held:
        return self.held

    def new_lines(self) -> list[str]:
        return []

    def copy(self) -> Path:
        (found,) = (self.paths.data_dir / "set-aside").glob("*-before-epoch-1-*/etcd/member/snap")
        return found


class Daemon(Resetting):
    """One life of the daemon; the `crash_at`-th durable step ends it, before or after it."""

    def __init__(self, disk: Disk, *, crash_at: int = 0, before: bool = False) -> None:
        ground = groundwork(N2, disk.folder)
        state = disk.folder / "state"
        ticks = itertools.count(0.0, 30.0)  # Each look is half a minute after the one before.
        super().__init__(state, disk.paths, disk, ground, clock=lambda: next(ticks))
        self.left, self.before = crash_at, before

    def _step_is_last(self) -> bool:
        self.left -= 1
        return self.left == 0

    def _save(self, intent: Intent) -> None:
        last = self._step_is_last()
        if last and self.before:
            raise Crash
        super()._save(intent)
        if last:
            raise Crash

    async def go_on(self, sent: EventSink, order: ClusterOrder = BEFORE) -> None:
        around: Surroundings = surroundings(N2)
        while self.intent is not None:
            told = self._told_at
            waiting = await self.advance(Around(order=order, surroundings=around, events=sent))
            if waiting is None:
                break
            if self._told_at != told:
                order = AFTER  # The node published it.

    def outcome(self) -> str:
        assert self.last is not None
        return self.last.outcome


def ready(epoch: int) -> K3sObserved:
    return K3sObserved(state="ready", epoch=epoch)


async def life(disk: Disk, daemon: Daemon, order: ClusterOrder = BEFORE) -> list[Event]:
    send, receive = trio.open_memory_channel[Event](16)
    async with send, receive:
        await daemon.go_on(send, order)
        daemon.look(ready(disk.epoch))
        sent = []
        while receive.statistics().current_buffer_used:
            sent.append(receive.receive_nowait())
        return sent


async def two_lives(
    disk: Disk, intent: Intent, *, crash_at: int, before: bool = False
) -> tuple[Daemon, list[Event]]:
    """Begin, die at that step, and go on; return the last daemon and what it sent."""
    daemon = Daemon(disk, crash_at=crash_at, before=before)
    try:
        daemon.begin(intent)
        return daemon, await life(disk, daemon)
    except Crash:
        daemon = Daemon(disk)
        return daemon, await life(disk, daemon)


async def test_a_reset_makes_this_database_the_only_one(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    (event,) = await life(disk, daemon)
    assert event == MembershipReset(
        epoch=1,
        cluster_id=plan().cluster_id,
        before=b"b" * 32,
        seats=plan().seats[1:2],
        dead=(N1, N3),
        by="anna",
        at_ms=INTENT.at_ms,
    )
    assert (disk.epoch, disk.database.read_bytes(), disk.copy().read_bytes()) == (1, NEW, OLD)
    assert daemon.outcome() == "done"
    assert not {"server", "cluster-init"} & drop_in(tmp_path).keys(), "k3s refuses both"
    assert read_first_start(tmp_path / "state", plan().cluster_id) == "begun"
    assert Daemon(disk).outcome() == "done", "it is remembered"


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("crash_at", range(1, 7))
async def test_a_daemon_that_dies_at_any_step_goes_on_afterwards(
    tmp_path: Path, crash_at: int, *, before: bool
) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk, crash_at=crash_at, before=before)
    try:
        daemon.begin(INTENT)
        await life(disk, daemon)
    except Crash:
        daemon = Daemon(disk)
        if before and crash_at == 1:
            assert daemon.intent is None, "it was never asked for"
            assert disk.database.read_bytes() == OLD
            return
        events = await life(disk, daemon)
        assert [type(event) for event in events] == [MembershipReset]
    assert (disk.epoch, disk.database.read_bytes(), disk.copy().read_bytes()) == (1, NEW, OLD)
    assert daemon.outcome() == "done"


@pytest.mark.parametrize(
    "said", ["panic: no space", "cluster membership was previously reset, please remove the flag"]
)
async def test_an_attempt_that_fails_or_was_cut_short_is_repeated(
    tmp_path: Path, said: str
) -> None:
    disk = Disk(tmp_path)
    disk.fails, disk.last_words = 2, said
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    await life(disk, daemon)
    assert len(disk.launches) == 3
    assert (disk.epoch, disk.database.read_bytes(), daemon.outcome()) == (1, NEW, "done")


async def test_an_attempt_that_hangs_is_ended_and_repeated(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.hangs = 1
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    await life(disk, daemon)
    assert (len(disk.launches), disk.stops) == (2, 2)
    assert (disk.epoch, disk.database.read_bytes(), daemon.outcome()) == (1, NEW, "done")


async def test_one_that_hangs_each_time_is_undone(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.hangs = 3
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    await life(disk, daemon)
    assert (disk.epoch, disk.database.read_bytes(), daemon.outcome()) == (0, OLD, "failed")
    assert daemon.last is not None
    assert daemon.last.why.endswith("in 3 attempts; last: k3s was not done after 600 s")


@pytest.mark.parametrize("crash_at", range(11))
async def test_what_fails_for_good_is_undone(tmp_path: Path, crash_at: int) -> None:
    disk = Disk(tmp_path)
    disk.fails = 9
    daemon, sent = await two_lives(disk, INTENT, crash_at=crash_at)
    assert sent == []
    assert (disk.epoch, disk.database.read_bytes()) == (0, OLD)
    assert daemon.outcome() == "failed"
    assert daemon.last is not None
    assert (
        daemon.last.why == "k3s did not reset the membership in 3 attempts; last: panic: no space"
    )
    assert not disk.flag.exists()
    (kept,) = (disk.paths.data_dir / "set-aside").glob("*/etcd-failed/member/snap")
    assert kept.read_bytes() == b"half"
    assert look_at_database(disk.paths) is not None


async def test_a_refusal_of_the_gate_undoes_it(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(INTENT)

    disk.refuses = "a rival was faster"
    await life(disk, daemon)
    assert (disk.epoch, disk.database.read_bytes(), daemon.outcome()) == (0, OLD, "failed")


async def test_without_room_for_a_copy_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=1))
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    assert await life(disk, daemon) == []
    assert (disk.launches, disk.database.read_bytes()) == ([], OLD)
    assert daemon.last is not None
    assert "a copy of the database needs 64 MiB" in daemon.last.why


async def test_an_intent_that_cannot_be_read_keeps_k3s_down(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    Daemon(disk).begin(INTENT)
    (tmp_path / "state/cluster/reset.json").write_bytes(b"{")
    send, receive = trio.open_memory_channel[Event](1)
    async with send, receive:
        around = Around(order=BEFORE, surroundings=surroundings(N2), events=send)
        waiting = await Daemon(disk).advance(around)
    assert waiting is not None
    assert (waiting.state, "reset.json" in waiting.sentence) == ("failed", True)


async def test_the_gate_lets_nothing_but_the_reset_through_meanwhile(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk, crash_at=5)
    daemon.begin(INTENT)
    with pytest.raises(Crash):
        await life(disk, daemon)

    def why(*words: str, newest: int = 0) -> str | None:
        return refusal(
            gate.read_permit(tmp_path / "state"),
            argv=("/usr/bin/true", "server", *words),
            environment={"K3S_CONFIG_FILE": str(disk.paths.config)},
            state_dir=tmp_path / "state",
            newest_generation=1,
            newest_epoch=newest,
            has_fuse=True,
        )

    mark = read_mark(disk.paths.server)
    assert isinstance(mark, Mark)
    assert why("--cluster-reset") is None
    assert "being reset" in str(why())
    assert "was reset (epoch 1)" in str(why("--cluster-reset", newest=1))


async def test_the_only_server_that_is_left_never_begins_anew(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(INTENT)
    await life(disk, daemon)
    launch = lay(tmp_path, N2, AFTER)
    assert isinstance(launch, Launch), launch
    assert launch.needs == (disk.paths.etcd_log,)
    permit = read_permit(tmp_path / "state")
    assert permit is not None
    assert (permit.epoch, permit.reset, permit.alone) == (1, False, True)
    shutil.rmtree(disk.paths.data_dir)
    found = lay(tmp_path, N2, AFTER)
    assert not isinstance(found, Launch)
    assert "server folder is gone" in found.sentence
