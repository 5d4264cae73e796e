"""The fuse: a process beside k3s that kills it when the forming lease is over (docs/genesis.md).

It is neither meshd nor the supervisor, so it works while both are dead or stopped. Invariant: it is
armed before k3s begins to run, and ends only after k3s did, or once there is no limit any more.

    fuse.json     the fuse that is armed, and for which k3s
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from meshd.holder import PROGRAM, lease
from meshd.holder.processes import (
    descendants,
    is_alive,
    kill_group,
    read_json,
    readable,
    record_of,
    write_json,
)

LOOK_S = 0.5
"""How often the lease is read. Timeouts stand still while a machine sleeps, the lease does not: so
long may k3s run on after a resume."""

_ARMED_WITHIN_S = 10.0


def arm(folder: Path, pid: int) -> bool:
    """Start a fuse for a k3s; return whether it is armed. Its cluster is that of running.json."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    middle = os.fork()
    if middle == 0:
        _become_fuse(folder, pid, writer)
    os.close(writer)
    os.waitpid(middle, 0)
    armed = readable(reader, _ARMED_WITHIN_S) and os.read(reader, 1) == b"a"
    os.close(reader)
    return armed


def is_armed(folder: Path, pid: int) -> bool:
    """Whether a living fuse watches this k3s."""
    record = read_json(folder / "fuse.json")
    return record is not None and record["watches"] == pid and is_alive(record)


def main(folder: Path, *, pid: int, ready: int) -> None:
    """Watch one k3s to its end, or to the end of its lease."""
    running = read_json(folder / "running.json")
    if running is None or running["pid"] != pid or not is_alive(running):
        return
    pidfd = os.pidfd_open(pid)
    cluster = lease.cluster_of(running["incarnation"])
    write_json(folder / "fuse.json", record_of(os.getpid()) | {"watches": pid})
    os.write(ready, b"a")
    os.close(ready)
    while not readable(pidfd, 0):
        left = lease.left_s(folder, cluster)
        if left == math.inf:
            return
        if left <= 0:
            blow(pid, pidfd)
            return
        readable(pidfd, min(left, LOOK_S))


def blow(pid: int, pidfd: int) -> None:
    """Kill a k3s with all that descends from it and all of its group, and see it gone."""
    below = descendants(pid)
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for child in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    readable(pidfd, None)
    kill_group(pid)


def _become_fuse(folder: Path, pid: int, ready: int) -> NoReturn:
    """In a child: leave k3s' session, so that whoever starts k3s is not this one's parent."""
    try:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open("/dev/null", os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            arguments = ["fuse", str(folder), str(pid), str(ready)]
            program = [sys.executable, "-I", "-S", str(PROGRAM), *arguments]
            os.execv(program[0], program)  # noqa: S606 - A shell is not wanted.
    finally:
        os._exit(0)
