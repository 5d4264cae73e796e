from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from meshd.cluster.hostinit import OwnProcess
from meshd.holder import PROGRAM, processes, supervisor
from tests.cluster.supervised import Bench, is_alive, until


async def test_k3s_that_fails_is_started_again_and_its_last_words_are_kept(bench: Bench) -> None:
    bench.behaves("crash")
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: bench.host.look().exits >= 3)
    last = bench.host.look().last_exit
    assert last is not None
    assert (last.code, last.signal) == (3, None)
    assert last.lines[-1] == 'level=fatal msg="last line"'
    assert len(bench.started) >= 3


async def test_k3s_that_ends_well_is_started_again_too(bench: Bench) -> None:
    bench.behaves("exit0")
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: bench.host.look().exits >= 2)
    last = bench.host.look().last_exit
    assert last is not None
    assert last.code == 0
    assert "duplicate node name" in last.lines[-1]


async def test_another_incarnation_waits_for_the_end_of_one_that_ignores_being_stopped(
    bench: Bench,
) -> None:
    bench.behaves("stubborn")
    await bench.host.ensure(bench.launch("server"))
    await until((bench.folder / "child").exists)
    await until((bench.folder / "child").read_text)
    pid, child = bench.started[0], int((bench.folder / "child").read_text())
    bench.behaves("")
    with trio.fail_after(10):
        await bench.host.ensure(bench.launch("server", name="c2"))
        await until(lambda: len(bench.started) == 2)
    assert not is_alive(pid)
    assert not is_alive(child)


async def test_what_k3s_leaves_behind_is_gone_before_it_is_started_again(bench: Bench) -> None:
    bench.behaves("leaves-child")
    await bench.host.ensure(bench.launch("server"))
    await until((bench.folder / "child").exists)
    child = int((bench.folder / "child").read_text())
    await until(lambda: len(bench.started) > 1)
    assert not is_alive(child)


async def test_k3s_outlives_a_killed_supervisor_and_is_found_again(bench: Bench) -> None:
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: bench.pid in bench.started)
    first = bench.pid
    bench.kill_supervisor()
    await until(lambda: not bench.supervisors())
    assert bench.pid == first
    await bench.host.ensure(bench.launch("server"))
    assert len(bench.supervisors()) == 1
    os.kill(bench.started[0], signal.SIGKILL)
    await until(lambda: len(bench.started) == 2)


async def test_k3s_outlives_a_killed_daemon_and_is_found_by_the_next(bench: Bench) -> None:
    program = (
        "import sys, trio\n"
        "from pathlib import Path\n"
        "from meshd.cluster.hostinit import OwnProcess\n"
        "from meshd.cluster.plan import Launch\n"
        "async def main():\n"
        "    host = OwnProcess(Path(sys.argv[1]) / 'host', back_off_s=0.02, grace_s=0.2)\n"
        "    argv = (sys.argv[1] + '/k3s', 'server')\n"
        "    environment = (('PATH', '/usr/bin:/bin'),)\n"
        "    await host.ensure(Launch(incarnation='c1', argv=argv, environment=environment,"
        " needs=()))\n"
        "    print('ensured', flush=True)\n"
        "    await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-c", program, str(bench.folder)]
    daemon = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    said = b""
    while not said.endswith(b"\n"):
        said += await daemon.stdout.receive_some() or b"and ended\n"
    assert said == b"ensured\n"
    daemon.kill()
    await daemon.wait()
    await until(lambda: bench.pid in bench.started)
    first = bench.pid
    await bench.another_daemon().ensure(bench.launch("server"))
    assert bench.pid == first
    assert len(bench.started) == 1


async def test_killing_supervisors_at_any_moment_never_gives_two_k3s(bench: Bench) -> None:
    bench.behaves("crash")
    for moment in range(400):  # Until enough have started, however slow the machine is.
        await bench.host.ensure(bench.launch("server"))
        await trio.sleep(0.003 * moment)  # Sweeps over fork, exec, exit and back-off.
        bench.kill_supervisor()
        if moment >= 15 and len(bench.started) > 3:
            break
    bench.behaves("")
    for moment in range(10):
        await bench.host.ensure(bench.launch("server"))
        await trio.sleep(0.045 + 0.003 * moment)
        bench.kill_supervisor()
    await until(lambda: not bench.supervisors())
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: bench.pid in bench.started)
    bench.check_never_two()


async def test_a_supervisor_killed_before_its_child_is_on_record_has_no_successor_until_then(
    bench: Bench,
) -> None:
    log = bench.folder / "host/k3s.log"
    log.parent.mkdir()
    os.mkfifo(log)  # To open it for writing takes a reader: there the child stops.
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: len(bench.supervisors()) == 2)
    first = next(pid for pid in bench.supervisors() if _parent(pid) not in bench.supervisors())
    (child,) = set(bench.supervisors()) - {first}
    await until(lambda: os.getsid(child) == child)
    os.kill(first, signal.SIGKILL)
    await until(lambda: not is_alive(first))
    # On return the successor has the lock, or has gone without it.
    program = [sys.executable, "-I", "-S", str(PROGRAM), str(bench.folder / "host")]
    await trio.run_process(program)
    assert bench.supervisors() == [child]
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    await until(lambda: bench.started)
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: len(bench.supervisors()) == 1)
    assert bench.started == [child]
    assert bench.pid == child
    os.close(reader)


async def test_of_many_supervisors_started_at_once_one_stays(bench: Bench) -> None:
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: bench.pid in bench.started)
    bench.kill_supervisor()
    os.kill(bench.started[0], signal.SIGKILL)
    await until(lambda: bench.pid is None and not bench.supervisors())
    program = [sys.executable, "-I", "-S", str(PROGRAM), str(bench.folder / "host")]
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(trio.run_process, program)
    await until(lambda: bench.pid in bench.started)
    assert len(bench.supervisors()) == 1
    assert len(bench.started) == 2


async def test_new_arguments_wait_for_the_next_start_and_a_new_incarnation_does_not(
    bench: Bench,
) -> None:
    await bench.host.ensure(bench.launch("agent"))
    await until(lambda: bench.pid in bench.started)
    first = bench.pid
    await bench.host.ensure(bench.launch("agent", "--debug"))
    await bench.host.ensure(bench.launch("agent", "--debug", "--v=2"))
    assert bench.pid == first
    await bench.host.ensure(bench.launch("server", name="c1/server"))
    await until(lambda: bench.pid not in (None, first) and bench.pid in bench.started)
    await until(lambda: "arguments: server" in bench.host.new_lines())
    assert bench.host.look().exits == 0


async def test_one_that_is_to_be_replaced_is_started_again_once_and_tells_its_server(
    bench: Bench,
) -> None:
    lost = replace(bench.launch("agent"), server="https://10.0.0.14:6443")
    await bench.host.ensure(lost)
    await until(lambda: bench.pid in bench.started)
    first = bench.pid
    assert bench.host.look().server == lost.server
    other = replace(lost, server="https://10.0.0.11:6443")
    await bench.host.ensure(other)
    assert (bench.pid, bench.host.look().server) == (first, lost.server)
    for _ in range(2):
        await bench.host.ensure(other, replaces=first)
        await until(lambda: bench.pid in bench.started[1:])
        assert bench.host.look().server == other.server
    assert (len(bench.started), bench.host.look().exits) == (2, 0)
    bench.check_never_two()


async def test_k3s_is_not_started_without_what_it_needs(bench: Bench) -> None:
    database = bench.folder / "wal"
    await bench.host.ensure(bench.launch("server", needs=(database,)))
    await until(lambda: bench.host.look().blocked)
    assert bench.host.look().blocked == str(database)
    assert bench.started == []
    database.mkdir()
    await until(lambda: bench.started)
    assert bench.host.look().blocked is None


async def test_a_database_that_was_there_is_missed_without_any_daemon(bench: Bench) -> None:
    bench.behaves("database")
    database, note = bench.folder / "wal", bench.folder / "host/had-c1-server"
    launch = bench.launch("server", keeps=(database,), name="c1/server")
    await bench.host.ensure(launch)
    await until(note.exists)
    database.rmdir()
    os.kill(bench.started[0], signal.SIGKILL)
    await until(lambda: bench.host.look().blocked)
    assert bench.host.look().blocked == str(database)
    # Nor is it forgotten by the next supervisor, after a reboot or a power cut.
    bench.kill_supervisor()
    await until(lambda: not bench.supervisors())
    (bench.folder / "host/report.json").unlink()
    await bench.host.ensure(launch)
    await until(lambda: bench.host.look().blocked)
    assert len(bench.started) == 1
    # Told to join others instead, it needs none.
    await bench.host.ensure(bench.launch("server", name="c1/server"))
    await until(lambda: len(bench.started) == 2)


async def test_a_k3s_that_made_no_database_yet_is_started_again(bench: Bench) -> None:
    bench.behaves("crash")
    await bench.host.ensure(bench.launch("server", keeps=(bench.folder / "wal",)))
    await until(lambda: len(bench.started) > 2)
    assert bench.host.look().blocked is None


async def test_a_disk_that_takes_no_notes_does_not_end_the_supervisor(bench: Bench) -> None:
    bench.behaves("database")
    database, note = bench.folder / "wal", bench.folder / "host/had-c1"
    report = bench.folder / "host/report.json"
    await bench.host.ensure(bench.launch("server", keeps=(database,)))
    await until(note.exists)
    # Whatever root may write, these paths cannot be written.
    note.unlink()
    note.symlink_to(bench.folder / "nowhere/note")
    report.unlink()
    report.mkdir()
    bench.behaves("")  # It makes no other database.
    os.kill(bench.started[0], signal.SIGKILL)
    await until(lambda: len(bench.started) == 2)
    database.rmdir()
    os.kill(bench.started[1], signal.SIGKILL)
    note.unlink()
    report.rmdir()
    await until(note.exists)
    await until(report.exists)
    await until(lambda: bench.host.look().blocked)
    assert (bench.host.look().exits, bench.host.look().blocked) == (2, str(database))
    assert len(bench.started) == 2, "started without the database that it had"


def test_a_log_that_cannot_be_copied_is_cut_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES_MAX", 100)
    log, older = tmp_path / "k3s.log", tmp_path / "k3s.log.1"
    log.write_text("x" * 101)
    older.symlink_to("/dev/full")
    supervisor.Supervisor(tmp_path, wake=-1)._shorten_log()
    assert log.read_text() == ""
    assert not older.is_symlink()


async def test_k3s_that_could_not_even_have_a_log_is_tried_again(bench: Bench) -> None:
    log = bench.folder / "host/k3s.log"
    log.parent.mkdir()
    log.symlink_to(bench.folder / "nowhere/k3s.log")
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: bench.host.look().exits > 1)
    last = bench.host.look().last_exit
    assert last is not None
    assert (last.code, last.lines) == (127, ())
    log.unlink()
    await until(lambda: bench.started)


async def test_a_k3s_that_cannot_be_run_is_said_so(bench: Bench) -> None:
    (bench.folder / "k3s").chmod(0o644)
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: bench.host.look().exits)
    last = bench.host.look().last_exit
    assert last is not None
    assert last.code == 127
    assert last.lines == (f"meshd: cannot run {bench.folder}/k3s: Permission denied",)


async def test_k3s_gets_the_given_environment_and_a_session_of_its_own(bench: Bench) -> None:
    bench.behaves("environment")
    await bench.host.ensure(bench.launch("server"))
    await until((bench.folder / "environment").exists)
    await until(lambda: "PATH" in (bench.folder / "environment").read_text())
    names = {line.partition("=")[0] for line in (bench.folder / "environment").read_text().split()}
    assert names <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}
    assert bench.pid is not None
    assert os.getsid(bench.pid) == bench.pid
    ignored = int(_status(bench.pid, "SigIgn"), 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1)
    modes = {stat.S_IMODE(f.stat().st_mode) for f in (bench.folder / "host").iterdir()}
    assert modes == {0o600}


async def test_a_record_of_another_boot_or_a_reused_number_is_no_k3s(bench: Bench) -> None:
    record = {"pid": os.getpid(), "start_time": processes.start_time(os.getpid())}
    here = record | {"boot_id": processes.boot_id()}
    assert processes.is_alive(here)
    assert not processes.is_alive(here | {"boot_id": "another"})
    assert not processes.is_alive(here | {"start_time": 1})
    processes.kill_group(os.getpid())  # Our own number lives: the group is not k3s' any more.
    assert is_alive(os.getpid())


async def test_a_small_supervisor_holds_k3s(bench: Bench) -> None:
    await bench.host.ensure(bench.launch("server"))
    await until(lambda: bench.pid in bench.started)  # Until then its child looks like it.
    (pid,) = bench.supervisors()
    assert int(_status(pid, "VmRSS").split()[0]) < 16 << 10  # KiB; 10 MiB were measured.


def test_the_log_is_shortened_and_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES_MAX", 100)
    host = OwnProcess(tmp_path)
    log = tmp_path / "k3s.log"
    log.write_text("one\ntwo\nhal")
    assert host.new_lines() == ["one", "two"]
    with log.open("a") as file:
        file.write("f\n" + "x" * 100 + "\n")
    assert host.new_lines() == ["half", "x" * 100]
    supervisor.Supervisor(tmp_path, wake=-1)._shorten_log()
    with log.open("a") as file:
        file.write("three\n")
    assert host.new_lines() == ["three"]
    assert log.read_text() == "three\n"
    assert (tmp_path / "k3s.log.1").read_text().startswith("one")
    assert supervisor.last_lines(log, start=10_000) == ["three"]


def _parent(pid: int) -> int:
    return int(_status(pid, "PPid"))


def _status(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
