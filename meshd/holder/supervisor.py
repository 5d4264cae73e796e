"""The process that holds k3s: starts it, and starts it again whenever it ends.

It lives in one folder, besides `lease.json` and `fuse.json`:

    order.json    what to run, or that nothing is to run, written by the daemon; a k3s of another
                  incarnation is stopped first
    wake          a FIFO; any byte makes the supervisor read the order again
    lock          held for life: there is never a second supervisor
    running.json  the k3s that runs: pid, start time, boot id, incarnation
    report.json   how often k3s ended, how it ended last, and what keeps it from being started, or
                  that it was stopped as ordered; on a full disk it comes later
    k3s.log       its output
    had-*         one per incarnation, empty: it was seen to have what the order says it keeps

Invariants. Never two k3s: the child writes `running.json` itself, before it becomes k3s, and until
then holds the inherited lock; so whoever gets the lock finds every k3s that a killed supervisor
left behind, and goes on with it instead of starting another. A k3s that had a database is not
started without it: the daemon, which could order otherwise, may be dead all the while. A k3s under
the forming lease is started only while enough of it is left, and never without a fuse. What is
ordered once is not started again in this boot after it ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from meshd.holder import fuse, lease
from meshd.holder.processes import (
    Record,
    boot_id,
    is_alive,
    kill_group,
    make_durable,
    read_json,
    readable,
    record_of,
    size_of,
    write_json,
)

BACK_OFF_S = 5.0  # RestartSec of k3s' own unit (k3s k3s.service).
GRACE_S = 5.0  # Then SIGKILL, so that all is over within 10 s.
LOG_BYTES_MAX = 16 << 20
LINES_MAX = 40
_IDLE_S = 60.0  # How often the log's size is looked at.
_FUSE_LOOK_S = 2.0  # How often a k3s under the forming lease is seen to have its fuse.
_UNSEEN_S = 0.2  # How often k3s is looked at until it has what it is to keep.
GATE_TIMEOUT_S = 30.0
_REFUSED = 4  # Of `meshd k3s-gate`; every other failure is the gate's own.
_NOT_EXECUTED = 127  # As shells say it.
_NOTHING_YET: Record = {
    "exits": 0,  # By itself, in this boot: not by the fuse, not by an order.
    "last_exit": None,
    "blocked": None,  # A path that must exist and does not.
    "unleased": False,  # Too little is left of the forming lease.
    "refused": None,  # What the gate said against it.
    "down": False,  # Nothing of k3s runs, as ordered.
}


class Running:
    """A k3s that was started, by this supervisor or by one before it."""

    def __init__(self, record: Record, *, is_child: bool, log_from: int) -> None:
        self.pid: int = record["pid"]
        self.incarnation: str = record["incarnation"]
        self.is_child = is_child
        self.log_from = log_from
        self.pidfd = os.pidfd_open(self.pid)

    def end(self) -> Record:
        """Take leave of the process that ended, and of what it left in its group.

        Returns:
            `code` or `signal`; neither if it was another supervisor's child.
        """
        # The group first: while the process is not waited for, its number belongs to nobody else.
        kill_group(self.pid)
        os.close(self.pidfd)
        if not self.is_child:
            return {}
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return {"code": code} if code >= 0 else {"signal": -code}

    def stop(self, grace_s: float) -> Record:
        """Ask the process to end, then force it and its group."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        if not readable(self.pidfd, grace_s):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            readable(self.pidfd, None)  # However long: a second one must not start beside it.
        return self.end()


class Supervisor:
    """What one folder's supervisor knows; `run` is its life."""

    def __init__(self, folder: Path, wake: int) -> None:
        self.folder = folder
        self.wake = wake
        self.log = folder / "k3s.log"
        self.order: Record = {}
        self.report: Record = {"incarnation": None, "boot_id": boot_id()} | _NOTHING_YET
        told = read_json(folder / "report.json") or {}
        self.report |= told if told.get("boot_id") == boot_id() else {}
        self.report_is_late = False
        self.not_before = 0.0
        self.group: int | None = None  # Of the k3s that was stopped last.
        self.had: set[Path] = set()  # Beside the files: a full disk makes nothing forgotten.

    def run(self) -> None:
        """Hold k3s as ordered, for good."""
        running = self._adopt()
        while True:
            self.order = read_json(self.folder / "order.json") or self.order
            if not self.order:
                return  # Whoever writes the first order starts another supervisor.
            if running is not None and self._is_to_end(running):
                self.group = running.pid
                running.stop(0.0 if self.order.get("stop") else self._seconds("grace_s", GRACE_S))
                running = None
            unseen = not self._note_kept()
            if running is not None and not self._may_run(running):
                running.stop(0.0)
                running = None
                self._back_off()
            if self.order.get("stop"):
                self._say_down()
            elif running is None:
                running = self._start_if_allowed()
            if self._wait(running, self._timeout_s(running, unseen=unseen)):
                assert running is not None
                self._record_exit(running)
                running = None
            self._shorten_log()
            if self.report_is_late:
                self._publish({})

    def _is_to_end(self, running: Running) -> bool:
        replaced = self.order.get("replaces") == running.pid
        return replaced or running.incarnation != self.order["incarnation"]

    def _adopt(self) -> Running | None:
        record = read_json(self.folder / "running.json")
        if record is None or not is_alive(record):
            if record is not None and record["boot_id"] == boot_id():
                kill_group(record["pid"])  # What a k3s that died unseen left behind.
            return None
        self.report["incarnation"] = record["incarnation"]
        return Running(record, is_child=False, log_from=size_of(self.log))

    def _may_run(self, running: Running) -> bool:
        """Whether a k3s under the lease has a fuse; one of before may lack it, or lost it."""
        if not self.order.get("leased") or fuse.is_armed(self.folder, running.pid):
            return True
        try:
            return self._lease_left_s() > 0 and fuse.arm(self.folder, running.pid)
        except OSError:  # No process more, just now.
            return False

    def _say_down(self) -> None:
        if self.group is not None and not kill_group(self.group):
            return  # Not all of it is gone: the next look tries again.
        done = {"incarnation": self.order["incarnation"], "down": True}
        if not self.report.items() >= done.items():
            self._publish(_NOTHING_YET | done)

    def _start_if_allowed(self) -> Running | None:
        if not self._may_start():
            return None
        log_from = size_of(self.log)
        try:
            pid = os.fork()
        except OSError:  # Too many processes, or too little memory, just now.
            self._back_off()
            return None
        if pid == 0:
            become_k3s(self.folder, self.log, self.order)
        return Running(
            {"pid": pid, "incarnation": self.order["incarnation"]},
            is_child=True,
            log_from=log_from,
        )

    def _may_start(self) -> bool:
        """Whether nothing speaks against a start just now; what does is in the report."""
        if self.report["incarnation"] != self.order["incarnation"]:
            self._publish(_NOTHING_YET | {"incarnation": self.order["incarnation"]})
            self.not_before = 0.0
        if time.monotonic() < self.not_before:
            return False
        if self.order.get("once") and self.report["exits"]:
            self.not_before = time.monotonic() + _IDLE_S  # Whoever orders something else wakes us.
            return False
        unleased = bool(self.order.get("leased")) and self._lease_left_s() < lease.START_MIN_S
        if unleased != self.report["unleased"]:
            self._publish({"unleased": unleased})
        if unleased:
            self.not_before = time.monotonic() + _IDLE_S  # Whoever extends it wakes us.
            return False
        needs = list(self.order["needs"])
        if self._note() in self.had or self._note().exists():
            needs += self.order["keeps"]
        missing = next((path for path in needs if not Path(path).exists()), None)
        if missing != self.report["blocked"]:
            self._publish({"blocked": missing})
        if missing is not None:
            self._back_off()
            return False
        return self._passes_gate()

    def _passes_gate(self) -> bool:
        """Ask the gate about this start; a new order meanwhile is looked at first."""
        if not self.order.get("gate"):
            return True
        refused = ask_gate(self.order)
        if refused != self.report["refused"]:
            self._publish({"refused": refused})
        if refused is not None:
            self._back_off()
            return False
        return self.order == (read_json(self.folder / "order.json") or self.order)

    def _note_kept(self) -> bool:
        """Write down that k3s has what it is to keep; return whether that is settled."""
        note = self._note()
        if not self.order["keeps"] or note.exists():
            return True
        if note not in self.had and not all(Path(path).exists() for path in self.order["keeps"]):
            return False
        self.had.add(note)
        try:
            make_durable(note)
        except OSError:
            return False  # The next look tries again.
        return True

    def _lease_left_s(self) -> float:
        return lease.left_s(self.folder, lease.cluster_of(self.order["incarnation"]))

    def _note(self) -> Path:
        return self.folder / f"had-{self.order['incarnation'].replace('/', '-')}"

    def _timeout_s(self, running: Running | None, *, unseen: bool) -> float:
        if self.order.get("stop"):
            return _IDLE_S
        if running is None:
            return max(self.not_before - time.monotonic(), 0.05)
        if unseen:
            return _UNSEEN_S
        if self.order.get("leased"):
            return _FUSE_LOOK_S
        return self._seconds("back_off_s", BACK_OFF_S) if self.report_is_late else _IDLE_S

    def _wait(self, running: Running | None, timeout_s: float) -> bool:
        """Wait for an order, the end of k3s or the timeout; return whether k3s ended."""
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        if running is not None:
            poll.register(running.pidfd, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(timeout_s * 1000)]
        if self.wake in ready:
            os.read(self.wake, 4096)
            if self.report["unleased"] or self.order.get("once"):
                self.not_before = 0.0
        return running is not None and running.pidfd in ready

    def _record_exit(self, running: Running) -> None:
        how = running.end()
        by_itself = not self.order.get("leased") or self._lease_left_s() > 0
        self._publish(
            {
                "exits": self.report["exits"] + by_itself,
                "last_exit": how | {"lines": last_lines(self.log, running.log_from)},
            }
        )
        self._back_off()

    def _publish(self, change: Record) -> None:
        self.report |= change
        try:
            write_json(self.folder / "report.json", self.report)
        except OSError:  # A full disk is no reason to let go of k3s.
            self.report_is_late = True
        else:
            self.report_is_late = False

    def _back_off(self) -> None:
        self.not_before = time.monotonic() + self._seconds("back_off_s", BACK_OFF_S)

    def _seconds(self, name: str, default: float) -> float:
        return float(self.order.get(name, default))

    def _shorten_log(self) -> None:
        if size_of(self.log) > LOG_BYTES_MAX:
            # k3s appends, so after the cut it writes on at the new end; a line may be lost.
            older = self.log.with_suffix(".log.1")
            try:
                shutil.copyfile(self.log, older)
            except OSError:  # The disk may be full of this very log: cut it all the same.
                with contextlib.suppress(OSError):
                    older.unlink()  # Half a copy.
            with contextlib.suppress(OSError):
                os.truncate(self.log, 0)


def ask_gate(order: Record) -> str | None:
    """Return why k3s may not start, or None. A gate that is broken keeps no formed k3s down."""
    command, environment = order["gate"], order["environment"]
    try:
        done = subprocess.run(  # noqa: S603 - meshd's own command.
            command, env=environment, capture_output=True, timeout=GATE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        said, code = str(error), None
    else:
        said, code = done.stderr.decode("utf-8", errors="replace"), done.returncode
    if code == 0:
        return None
    if code == _REFUSED:
        return said.partition(": ")[2].partition("\n")[0] or "the gate refuses it"
    if order.get("formed"):
        return None
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    return f"whether k3s may start cannot be told: {last}"


def become_k3s(folder: Path, log: Path, order: Mapping[str, Any]) -> NoReturn:
    """In the child: a session of its own, the record on disk, a fuse if leased, then k3s."""
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        told = {"incarnation": order["incarnation"], "server": order.get("server")}
        record = record_of(os.getpid()) | told
        write_json(folder / "running.json", record)
        if order.get("leased") and not fuse.arm(folder, os.getpid()):
            os.write(2, b"meshd: k3s is not started, because its fuse could not be armed\n")
            os._exit(_NOT_EXECUTED)
        _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and k3s would inherit.
        argv = order["argv"]
        os.execve(argv[0], argv, order["environment"])  # noqa: S606 - a shell is not wanted.
    except OSError as error:
        os.write(2, f"meshd: cannot run {order['argv'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_EXECUTED)


def last_lines(log: Path, start: int) -> list[str]:
    """Return the last lines of the log, none from before byte `start`; none from no log."""
    size = size_of(log)
    if size < start:
        start = 0  # It was shortened meanwhile.
    try:
        with log.open("rb") as file:
            file.seek(max(start, size - (64 << 10)))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line[:1000] for line in lines[-LINES_MAX:]]


def main(folder: Path) -> None:
    """Become the folder's supervisor in the background, unless it has one."""
    # Descriptors opened by Python are closed on exec: k3s does not inherit the lock.
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    with contextlib.suppress(FileExistsError):
        os.mkfifo(folder / "wake", 0o600)
    # Reading and writing: with no writer left a read end alone would report end of file for ever.
    wake = os.open(folder / "wake", os.O_RDWR | os.O_NONBLOCK)
    if os.fork():
        os._exit(0)  # Whoever started us waits for this: the lock is taken.
    os.setsid()
    os.chdir("/")
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    Supervisor(folder, wake).run()
