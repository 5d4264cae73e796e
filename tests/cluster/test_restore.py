"""`meshd bootstrap reset --from-snapshot`: the file, what k3s is told, and what is put back."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from meshd.cluster import gate
from meshd.cluster.groundwork import Tokens
from meshd.cluster.hostinit import Exit
from meshd.cluster.mark import Mark, read_mark
from meshd.cluster.plan import Launch
from meshd.cluster.reset import SUCCESS, Resetting
from meshd.cluster.snapshot import fault_of
from meshd.errors import MeshdError
from meshd.events import MembershipReset
from tests.cluster.bench import N2, groundwork, plan, server, surroundings
from tests.cluster.laying import expect_obstacle, lay
from tests.cluster.test_reset import INTENT, NEW, OLD, Daemon, Disk, life, two_lives

PAGE = bytes(16) + (0xED0CDAED).to_bytes(4, "little") + bytes(492)


def snapshot(folder: Path, name: str = "etcd-snapshot-n2-1795715760") -> Path:
    file = folder / name
    file.write_bytes(PAGE + hashlib.sha256(PAGE).digest())
    return file


def archive(folder: Path, *names: str) -> Path:
    file = folder / "kept.zip"
    with zipfile.ZipFile(file, "w") as packed:
        for name in names:
            packed.writestr(name, PAGE)
    return file


def test_a_whole_snapshot_is_taken(tmp_path: Path) -> None:
    assert fault_of(snapshot(tmp_path)) is None
    assert fault_of(archive(tmp_path, "kept")) is None


def test_what_k3s_could_not_restore_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    whole = snapshot(tmp_path)
    content = whole.read_bytes()
    changed = content[:100] + b"x" + content[101:]
    for found, why in (
        (content[:-1], "a part of one"),
        (content[:-32], "a part of one"),
        (b"", "no snapshot of etcd"),
        (b"#!/bin/sh\n" * 60, "no snapshot of etcd"),
        (changed, "checksum"),
    ):
        whole.write_bytes(found)
        assert why in str(fault_of(whole)), found[:30]
    assert "is no file" in str(fault_of(tmp_path))
    assert "is no file" in str(fault_of(tmp_path / "nowhere"))
    assert "2 files" in str(fault_of(archive(tmp_path, "one", "two")))
    packed = archive(tmp_path, "kept")
    packed.write_bytes(packed.read_bytes().replace(PAGE, PAGE[:-1] + b"x"))
    assert "damaged" in str(fault_of(packed))
    packed.write_bytes(content)
    assert "no zip archive" in str(fault_of(packed))
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as deflated:
        deflated.writestr("kept", bytes(range(256)) * 40)
    whole_archive = packed.read_bytes()
    for place in range(0, len(whole_archive), 7):
        flipped = whole_archive[place : place + 1][0] ^ 0x10
        packed.write_bytes(whole_archive[:place] + bytes([flipped]) + whole_archive[place + 1 :])
        fault_of(packed)  # Whatever it says, it says it.


def test_what_is_known_of_it_is_shown(tmp_path: Path) -> None:
    disk, file = Disk(tmp_path), snapshot(tmp_path)
    resetting = Daemon(disk)
    shutil.rmtree(disk.database.parent.parent)
    assert resetting.database() is None
    found = resetting.database(str(file))
    assert found is not None
    assert (found.cluster_id, found.epoch, found.size_bytes) == (plan().cluster_id, 0, 544)
    assert found.written_ms == file.stat().st_mtime_ns // 1_000_000
    file.write_bytes(b"x")
    with pytest.raises(MeshdError) as caught:
        resetting.database(str(file))
    assert caught.value.code == "MESH-4036"


async def test_k3s_is_told_to_restore_it_and_everybody_which_one_it_was(tmp_path: Path) -> None:
    disk, file = Disk(tmp_path), snapshot(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(msgspec.structs.replace(INTENT, snapshot=str(file)))
    (event,) = await life(disk, daemon)
    assert isinstance(event, MembershipReset)
    assert event.snapshot == file.name
    (launch,) = disk.launches
    assert launch.argv[-2:] == (f"--cluster-reset-restore-path={file}", "--cluster-reset")
    assert launch.needs == (file,), "without it k3s would begin a cluster of its own"
    assert (disk.epoch, disk.copy().read_bytes(), daemon.outcome()) == (1, OLD, "done")


@pytest.mark.parametrize("crash_at", range(11))
async def test_what_cannot_be_restored_is_undone(tmp_path: Path, crash_at: int) -> None:
    disk = Disk(tmp_path)
    disk.fails = 9
    intent = msgspec.structs.replace(INTENT, snapshot=str(snapshot(tmp_path)))
    daemon, sent = await two_lives(disk, intent, crash_at=crash_at)
    assert (sent, daemon.outcome()) == ([], "failed")
    assert (disk.epoch, disk.database.read_bytes()) == (0, OLD)


class Bare(Disk):
    """A disk whose database is gone; k3s makes one of the snapshot."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shutil.rmtree(self.paths.server / "db")

    async def ensure(self, launch: Launch, *, replaces: int | None = None) -> None:
        assert replaces is None
        if self.launches[-1:] == [launch]:
            return
        self.launches.append(launch)
        self.database.parent.mkdir(parents=True)
        self.database.write_bytes(NEW)
        ended = Exit(code=0, signal=None, lines=(SUCCESS,))
        self.held = replace(self.held, pid=None, exits=1, last_exit=ended, down=False)


async def test_a_database_that_cannot_be_read_is_moved_and_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "copytree", None)
    disk = Disk(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(msgspec.structs.replace(INTENT, snapshot=str(snapshot(tmp_path))))
    await life(disk, daemon)
    assert (disk.copy().read_bytes(), daemon.outcome()) == (OLD, "done")


async def test_without_the_snapshot_it_is_undone_at_once(tmp_path: Path) -> None:
    class Gone(Disk):
        async def ensure(self, launch: Launch, *, replaces: int | None = None) -> None:
            self.held = replace(self.held, blocked=str(launch.needs[0]), down=True)

    disk, file = Gone(tmp_path), snapshot(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(msgspec.structs.replace(INTENT, snapshot=str(file)))
    await life(disk, daemon)
    assert (disk.database.read_bytes(), daemon.outcome()) == (OLD, "failed")
    assert daemon.last is not None
    assert daemon.last.why == f"{file} is gone"


async def test_a_database_that_is_gone_needs_no_copy(tmp_path: Path) -> None:
    disk = Bare(tmp_path)
    daemon = Daemon(disk)
    daemon.begin(msgspec.structs.replace(INTENT, snapshot=str(snapshot(tmp_path))))
    await life(disk, daemon)
    assert (disk.epoch, disk.database.read_bytes(), daemon.outcome()) == (1, NEW, "done")


def test_the_only_server_of_a_cluster_may_restore_what_it_must_never_begin_anew(
    tmp_path: Path,
) -> None:
    disk, file = Bare(tmp_path), snapshot(tmp_path)
    alone = replace(server(formed=True), plan=replace(plan(), seats=plan().seats[1:2]), join=())
    expect_obstacle(lay(tmp_path, N2, alone), "failed", "database is gone")
    ground = groundwork(N2, tmp_path)
    tokens = ground.tokens(alone)
    assert isinstance(tokens, Tokens)

    def laid(path: str) -> object:
        return ground.lay_reset(
            alone,
            tokens,
            surroundings(N2),
            attempt=1,
            address=plan().seats[1].node_ip,
            snapshot=path,
        )

    assert not isinstance(laid(""), Launch), "that would be a second cluster"
    launch = laid(str(file))
    assert isinstance(launch, Launch)
    assert isinstance(read_mark(disk.paths.server), Mark)

    def why(*words: str) -> str | None:
        return gate.refusal(
            gate.read_permit(tmp_path / "state"),
            argv=("/usr/bin/true", "server", *words),
            environment={"K3S_CONFIG_FILE": str(disk.paths.config)},
            state_dir=tmp_path / "state",
            newest_generation=1,
            newest_epoch=0,
            has_fuse=True,
        )

    restore = f"--cluster-reset-restore-path={file}"
    assert why(restore, "--cluster-reset") is None
    file.rename(file.with_suffix(".kept"))
    assert "is gone" in str(why(restore, "--cluster-reset"))
    file.with_suffix(".kept").rename(file)
    for words in (
        ("--cluster-reset",),
        (restore,),
        (f"{restore}2", "--cluster-reset"),
        ("--cluster-init",),
        (),
    ):
        assert why(*words) is not None, words


def test_a_daemon_that_goes_on_knows_which_file_it_was(tmp_path: Path) -> None:
    disk, file = Disk(tmp_path), snapshot(tmp_path)
    Daemon(disk).begin(msgspec.structs.replace(INTENT, snapshot=str(file)))
    after: Resetting = Daemon(disk)
    assert after.intent is not None
    assert after.intent.snapshot == str(file)
