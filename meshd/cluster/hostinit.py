"""Who holds k3s on this machine, as the daemon sees it.

One implementation so far: meshd's own supervisor, for laboratories, containers and machines without
a service manager that meshd knows. systemd and OpenRC fit the same Protocol.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from meshd.cluster import supervisor
from meshd.cluster.plan import Launch
from meshd.whole_file import make_folder, write_whole

_LOG_BYTES_AT_ONCE = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How k3s ended. Both None: it ended unseen."""

    code: int | None
    signal: int | None
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """k3s as its holder sees it.

    Args:
        pid: of the k3s that runs, or None.
        exits: how often it ended since it was ordered.
        blocked: a path that must exist before it is started, and does not.
    """

    pid: int | None
    exits: int
    last_exit: Exit | None
    blocked: str | None


class HostInit(Protocol):
    """Starts k3s and keeps it running without the daemon; it never stops one for good."""

    async def ensure(self, launch: Launch) -> None:
        """Have k3s running as told. One that runs as this incarnation is left alone.

        One that runs as another incarnation is stopped first, within 10 s.

        Raises:
            OSError: the order cannot be written, or the holder cannot be started.
        """

    def look(self) -> Held:
        """Return how k3s is; costs two small reads."""

    def new_lines(self) -> list[str]:
        """Return what k3s wrote since the last call, at most 64 KiB."""


class OwnProcess:
    """k3s held by `meshd.cluster.supervisor`.

    Args:
        folder: the supervisor's, on a disk that no service manager clears while the daemon is down.
        back_off_s: pause before k3s is started again.
        grace_s: between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        folder: Path,
        *,
        back_off_s: float = supervisor.BACK_OFF_S,
        grace_s: float = supervisor.GRACE_S,
    ) -> None:
        self._folder = folder
        self._pace: dict[str, object] = {"back_off_s": back_off_s, "grace_s": grace_s}
        self._log = folder / "k3s.log"
        self._log_from = _size(self._log)

    async def ensure(self, launch: Launch) -> None:
        order: dict[str, object] = {
            "incarnation": launch.incarnation,
            "argv": launch.argv,
            "environment": dict(launch.environment),
            "needs": [str(path) for path in launch.needs],
            "keeps": [str(path) for path in launch.keeps],
        } | self._pace
        if await trio.to_thread.run_sync(self._write_order, order) or not self._has_supervisor():
            await self._wake_supervisor()

    def look(self) -> Held:
        running = supervisor.read_json(self._folder / "running.json")
        report = supervisor.read_json(self._folder / "report.json") or {}
        last = report.get("last_exit")
        return Held(
            pid=running["pid"] if running and supervisor.is_alive(running) else None,
            exits=report.get("exits", 0),
            last_exit=last
            and Exit(code=last.get("code"), signal=last.get("signal"), lines=tuple(last["lines"])),
            blocked=report.get("blocked"),
        )

    def new_lines(self) -> list[str]:
        size = _size(self._log)
        if size < self._log_from:
            self._log_from = 0  # The supervisor shortened it.
        start = max(self._log_from, size - _LOG_BYTES_AT_ONCE)
        if start == size:
            return []
        with self._log.open("rb") as file:
            file.seek(start)
            text = file.read(size - start)
        whole = text.rfind(b"\n") + 1  # The rest of the last line is still to come.
        self._log_from = start + whole
        return text[:whole].decode("utf-8", errors="replace").splitlines()

    def _write_order(self, order: dict[str, object]) -> bool:
        make_folder(self._folder, mode=0o700)
        return write_whole(self._folder / "order.json", json.dumps(order, sort_keys=True).encode())

    def _has_supervisor(self) -> bool:
        """Whether somebody reads the FIFO; only the holder of the lock does."""
        try:
            descriptor = os.open(self._folder / "wake", os.O_WRONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise
        os.close(descriptor)
        return True

    async def _wake_supervisor(self) -> None:
        try:
            descriptor = os.open(self._folder / "wake", os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise
        else:
            os.write(descriptor, b"w")
            os.close(descriptor)
            return
        # -I and -S: nothing but the standard library, whatever the daemon's surroundings.
        program = [sys.executable, "-I", "-S", supervisor.__file__, str(self._folder)]
        result = await trio.run_process(program, check=False, stdin=None)
        if result.returncode != 0:
            raise OSError(errno.EIO, f"the supervisor of k3s ended with {result.returncode}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
