"""Forks lives: all of meshd is imported once, and each life has a process of its own to be killed.

Speaks over one socket, one request at a time: a case in JSON; then, from the new process, its id
and its listener if it is watched; then, once the process has ended, its wait status.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from tests.store.boundary import (
    Action,
    Change,
    Supervision,
    send_listener,
    stop_before_changes,
    take_listener,
)
from tests.store.exam import examine
from tests.store.life import Case, Role, live


class Request(msgspec.Struct, frozen=True):
    """One life to be lived."""

    folder: str
    role: Role
    start_only: bool
    seed: int
    watched: bool
    examined: bool


@dataclass(slots=True)
class Zygote:
    """The process that forks, seen from the tests."""

    process: subprocess.Popen[bytes]
    line: socket.socket

    @classmethod
    def start(cls) -> Zygote:
        """Start it; the first life waits until everything is imported."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.store.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        return cls(process, ours)

    def end(self) -> None:
        """Let it end."""
        self.line.close()
        self.process.wait()

    def live(self, request: Request, decide: Callable[[Change], Action | int]) -> int:
        """Let a life be lived; return its exit code, or minus the signal that ended it."""
        self.line.sendall(msgspec.json.encode(request) + b"\n")
        if request.watched:
            listener, pid = take_listener(self.line)
            try:
                Supervision(listener, pid, Path(request.folder), decide).watch()
            finally:
                os.close(listener)
        status = self.line.recv(16)
        assert status, "the zygote died"
        return os.waitstatus_to_exitcode(int(status))


def main(descriptor: int) -> None:
    """Be the zygote until the other end closes."""

    with socket.socket(fileno=descriptor) as line, line.makefile("rb") as requests:
        for text in requests:
            request = msgspec.json.decode(text, type=Request)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    if request.watched:
                        send_listener(line, stop_before_changes())
                    case = Case(
                        folder=Path(request.folder),
                        role=request.role,
                        start_only=request.start_only,
                        seed=request.seed,
                    )
                    if request.examined:
                        case = replace(case, examine=examine)
                    code = live(case)
                except BaseException:  # noqa: BLE001  # Told, and the process ends.
                    traceback.print_exc()
                finally:
                    os._exit(code)
            _, status = os.waitpid(pid, 0)
            line.sendall(str(status).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
