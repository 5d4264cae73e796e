"""k3s under the forming lease: who ends it when the lease is over, whoever else is dead."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from ledger import Instant
from meshd.events import LEASE_START_MIN_S
from meshd.holder import lease, processes
from tests.cluster.supervised import Bench, is_alive, until


def from_now(seconds: float) -> Instant:
    return Instant(processes.boot_time_s() + seconds)


async def started(bench: Bench, *, left_s: float = 60.0) -> int:
    """Have a leased k3s running, then cut its lease to what is to be left."""
    await bench.host.extend("c1", from_now(60.0))
    await bench.host.ensure(bench.launch("server", name="c1/server", leased=True))
    await until(lambda: bench.pid in bench.started and bench.fuse())
    if left_s < 60.0:
        # No daemon does that: a lease never shrinks. Here it saves a minute.
        shorter = {"cluster": "c1", "boot_id": processes.boot_id(), "until": from_now(left_s)}
        processes.write_json(bench.folder / "host" / "lease.json", shorter)
    pid = bench.pid
    assert pid is not None
    return pid


async def test_without_a_lease_k3s_is_not_started(bench: Bench) -> None:
    await bench.host.ensure(bench.launch("server", name="c1/server", leased=True))
    await until(lambda: bench.host.look().unleased)
    assert bench.started == []
    await bench.host.extend("c1", from_now(lease.START_MIN_S + 30))
    await until(lambda: len(bench.started) == 1)
    assert not bench.host.look().unleased


@pytest.mark.parametrize("left_s", [lease.START_MIN_S - 1, -1.0])
async def test_a_lease_with_too_little_left_starts_nothing(bench: Bench, left_s: float) -> None:
    await bench.host.extend("c1", from_now(left_s))
    await bench.host.ensure(bench.launch("server", name="c1/server", leased=True))
    await until(lambda: bench.host.look().unleased)
    assert bench.started == []


def test_the_holder_and_the_simulated_one_ask_for_the_same_rest_of_a_lease() -> None:
    assert lease.START_MIN_S == LEASE_START_MIN_S  # Neither may import the other.


async def test_a_lease_of_another_cluster_starts_nothing(bench: Bench) -> None:
    await bench.host.extend("c2", from_now(60))
    await bench.host.ensure(bench.launch("server", name="c1/server", leased=True))
    await until(lambda: bench.host.look().unleased)
    assert bench.started == []


async def test_a_lease_of_another_boot_starts_nothing(bench: Bench) -> None:
    await bench.host.extend("c1", from_now(60))
    file = bench.folder / "host" / "lease.json"
    record = processes.read_json(file)
    assert record is not None
    processes.write_json(file, record | {"boot_id": "another"})
    await bench.host.ensure(bench.launch("server", name="c1/server", leased=True))
    await until(lambda: bench.host.look().unleased)
    assert bench.started == []


async def test_when_the_lease_is_over_k3s_and_all_below_it_is_killed(bench: Bench) -> None:
    bench.behaves("stubborn")
    pid = await started(bench, left_s=0.5)
    await until((bench.folder / "child").exists)
    await until((bench.folder / "child").read_text)
    child = int((bench.folder / "child").read_text())
    await until(lambda: not is_alive(pid))
    await until(lambda: not is_alive(child))
    await until(lambda: bench.host.look().unleased)
    held = bench.host.look()
    assert (held.pid, held.exits) == (None, 0), "an end that the fuse caused is none of k3s' own"
    assert len(bench.started) == 1


async def test_the_fuse_needs_neither_daemon_nor_supervisor(bench: Bench) -> None:
    pid = await started(bench, left_s=1.0)
    bench.kill_supervisor()
    await until(lambda: not bench.supervisors())
    await until(lambda: not is_alive(pid))
    assert bench.supervisors() == []


async def test_the_fuse_works_while_the_supervisor_is_stopped(bench: Bench) -> None:
    pid = await started(bench, left_s=1.0)
    (supervisor,) = bench.supervisors()
    os.kill(supervisor, signal.SIGSTOP)
    await until(lambda: not is_alive(pid))
    os.kill(supervisor, signal.SIGCONT)
    await until(lambda: bench.host.look().unleased)
    assert bench.started == [pid]


async def test_a_lease_that_grows_keeps_k3s_and_one_without_limit_takes_the_fuse_away(
    bench: Bench,
) -> None:
    pid = await started(bench, left_s=1.0)
    await bench.host.extend("c1", from_now(60))
    await bench.host.extend("c1", from_now(10))  # Never shorter.
    assert bench.host.look().lease_until == pytest.approx(from_now(60), abs=5)
    fuse = bench.fuse()
    assert fuse is not None
    await bench.host.extend("c1", None)
    await bench.host.ensure(bench.launch("server", name="c1/server"))
    await until(lambda: not is_alive(fuse))
    assert bench.pid == pid


async def test_a_killed_fuse_is_replaced(bench: Bench) -> None:
    pid = await started(bench)
    first = bench.fuse()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: bench.fuse() not in (None, first))
    assert bench.pid == pid


async def test_the_next_supervisor_finds_k3s_without_a_fuse_and_arms_one(bench: Bench) -> None:
    await started(bench)
    bench.kill_supervisor()
    await until(lambda: not bench.supervisors())
    first = bench.fuse()
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await bench.another_daemon().ensure(bench.launch("server", name="c1/server", leased=True))
    await until(lambda: bench.fuse() not in (None, first))
    assert len(bench.started) == 1


async def test_a_stop_kills_at_once_and_lasts(bench: Bench) -> None:
    bench.behaves("stubborn")
    pid = await started(bench)
    await bench.host.stop("c1")
    await until(lambda: bench.host.look().down)
    assert not is_alive(pid)
    bench.kill_supervisor()
    await until(lambda: not bench.supervisors())
    after = bench.another_daemon()
    await after.stop("c1")
    await until(lambda: after.look().down)
    assert len(bench.started) == 1
    await after.ensure(bench.launch("server", name="c2/server"))
    await until(lambda: len(bench.started) == 2)


async def test_a_stop_of_a_k3s_that_nobody_holds_any_more_reaches_it(bench: Bench) -> None:
    pid = await started(bench)
    bench.kill_supervisor()
    await until(lambda: not bench.supervisors())
    await bench.another_daemon().stop("c1")
    await until(lambda: bench.host.look().down)
    assert not is_alive(pid)


async def test_a_stop_of_another_cluster_stops_nothing(bench: Bench) -> None:
    pid = await started(bench)
    await bench.host.stop("c2")
    assert bench.host.look().cluster == "c1"
    assert bench.pid == pid


async def test_the_supervisor_asks_the_gate_before_every_start(bench: Bench) -> None:
    gate = bench.folder / "gate"
    gate.write_text(
        f'#!/bin/sh\necho "$@" >> {bench.folder}/asked\n. {bench.folder}/verdict\n', "utf-8"
    )
    gate.chmod(0o755)
    (bench.folder / "verdict").write_text("echo 'error[MESH-1]: not now' >&2; exit 4")
    host = bench.another_daemon(gate=(str(gate),))
    await host.ensure(bench.launch("server"))
    await until(lambda: host.look().refused == "not now")
    assert bench.started == []
    (bench.folder / "verdict").write_text("exit 0")
    await until(lambda: len(bench.started) == 1)
    assert host.look().refused is None
    assert (bench.folder / "asked").read_text().splitlines()[0] == f"{bench.folder}/k3s server"


@pytest.mark.parametrize("formed", [True, False])
async def test_a_broken_gate_keeps_only_an_unformed_k3s_down(bench: Bench, *, formed: bool) -> None:
    host = bench.another_daemon(gate=(str(bench.folder / "no-such-gate"),))
    await host.ensure(replace(bench.launch("server"), formed=formed))
    if formed:
        await until(lambda: len(bench.started) == 1)
    else:
        await until(lambda: "cannot be told" in str(host.look().refused))
    assert len(bench.started) == formed


async def test_k3s_whose_fuse_cannot_be_armed_again_is_killed(bench: Bench) -> None:
    pid = await started(bench)
    (supervisor,) = bench.supervisors()
    fuse = bench.fuse()
    assert fuse is not None
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (0, 0))  # As on a full disk.
    os.kill(fuse, signal.SIGKILL)
    await until(lambda: not is_alive(pid))
    assert bench.supervisors() == [supervisor]


async def test_a_stopped_cluster_is_not_started_again_before_it_is_formed(bench: Bench) -> None:
    await started(bench)
    await bench.host.stop("c1")
    await until(lambda: bench.host.look().down)
    launch = bench.launch("server", name="c1/server", leased=True)
    after = bench.another_daemon()
    await after.ensure(launch)
    assert after.look().stopping
    assert after.look().down
    await after.ensure(replace(launch, leased=False, formed=True))
    await until(lambda: len(bench.started) == 2)


async def test_a_supervisor_with_nothing_to_hold_sleeps(bench: Bench) -> None:
    await started(bench)
    await bench.host.stop("c1")
    await until(lambda: bench.host.look().down)
    (supervisor,) = bench.supervisors()
    before = wake_ups(supervisor)
    await trio.sleep(2)  # What is shown is that nothing happens meanwhile.
    assert wake_ups(supervisor) - before <= 2


def wake_ups(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
