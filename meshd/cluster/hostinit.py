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

from ledger import Instant
from meshd.cluster.plan import Launch
from meshd.holder import PROGRAM, lease, processes, supervisor
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
        exits: how often it ended by itself since it was ordered, in this boot.
        blocked: a path that must exist before it is started, and does not.
        cluster: the id of the cluster whose k3s runs, or is to be started when it may.
        unleased: too little is left of the forming lease to start it.
        refused: why the gate did not let it start, as a sentence.
        lease_until: CLOCK_BOOTTIME until which that cluster may run: infinite without a limit, 0
            if nothing was allowed in this boot; None without a cluster.
        stopping: that cluster is ordered to stop, and stays so until it is formed.
        down: that order is carried out.
        server: URL of the server that the k3s which runs was told to join, if that is known.
    """

    pid: int | None
    exits: int
    last_exit: Exit | None
    blocked: str | None
    cluster: str | None = None
    unleased: bool = False
    refused: str | None = None
    lease_until: Instant | None = None
    stopping: bool = False
    down: bool = False
    server: str | None = None


class HostInit(Protocol):
    """Starts k3s, and keeps it running, or stopped, without the daemon."""

    async def ensure(self, launch: Launch, *, replaces: int | None = None) -> None:
        """Have k3s running as told. One that runs as this incarnation is left alone.

        Unless it is the process `replaces`, which is stopped and started again. One that runs as
        another incarnation is stopped first, within 10 s. One that is leased is started only while
        enough of its lease is left, and killed when the lease is over. One whose cluster was
        stopped stays down, unless the cluster is formed after all.

        Raises:
            OSError: the order cannot be written, or the holder cannot be started.
        """

    async def extend(self, cluster: str, until: Instant | None) -> None:
        """Let k3s of the cluster run until then; None: for good. A lease never shrinks.

        Raises:
            OSError: it cannot be written.
        """

    async def stop(self, cluster: str) -> None:
        """Kill k3s of the cluster at once and keep it down, over a restart of anything.

        `Held.down` tells when that is done. One of another cluster is left alone.

        Raises:
            OSError: as `ensure`.
        """

    def look(self) -> Held:
        """Return how k3s is; costs two small reads."""

    def new_lines(self) -> list[str]:
        """Return what k3s wrote since the last call, at most 64 KiB."""


class OwnProcess:
    """k3s held by `meshd.holder`.

    Args:
        folder: the supervisor's, on a disk that no service manager clears while the daemon is down.
        back_off_s: pause before k3s is started again.
        grace_s: between SIGTERM and SIGKILL.
        gate: a command that says, given k3s' command line, whether it may start; none by default.
    """

    def __init__(
        self,
        folder: Path,
        *,
        back_off_s: float = supervisor.BACK_OFF_S,
        grace_s: float = supervisor.GRACE_S,
        gate: tuple[str, ...] = (),
    ) -> None:
        self._folder = folder
        self._gate = gate
        self._pace: dict[str, object] = {"back_off_s": back_off_s, "grace_s": grace_s}
        self._log = folder / "k3s.log"
        self._log_from = processes.size_of(self._log)

    async def ensure(self, launch: Launch, *, replaces: int | None = None) -> None:
        held = self.look()
        if held.stopping and held.cluster == launch.cluster and not launch.formed:
            return  # Others may count on its being down: nothing takes that back.
        order: dict[str, object] = {
            "incarnation": launch.incarnation,
            "argv": launch.argv,
            "environment": dict(launch.environment),
            "needs": [str(path) for path in launch.needs],
            "keeps": [str(path) for path in launch.keeps],
            "leased": launch.leased,
            "formed": launch.formed,
            "server": launch.server,
            "replaces": replaces,
            "once": launch.once,
            "gate": [*self._gate, *launch.argv] if self._gate else [],
        } | self._pace
        await self._order(order)

    async def extend(self, cluster: str, until: Instant | None) -> None:
        make_folder(self._folder, mode=0o700)
        if lease.extend(self._folder, cluster, until) and self._has_supervisor():
            await self._wake_supervisor()

    async def stop(self, cluster: str) -> None:
        if self.look().cluster != cluster:
            return
        nothing: dict[str, object] = {"stop": True, "needs": [], "keeps": []}
        await self._order({"incarnation": f"{cluster}/stopped"} | nothing | self._pace)

    def look(self) -> Held:
        running = processes.read_json(self._folder / "running.json")
        if running is not None and not processes.is_alive(running):
            running = None
        order = processes.read_json(self._folder / "order.json")
        report = processes.read_json(self._folder / "report.json") or {}
        told = order is not None and report.get("incarnation") == order["incarnation"]
        if not told or report.get("boot_id") != processes.boot_id():
            report = {}  # Of what was ordered before, or of another boot.
        last, of = report.get("last_exit"), running or order
        cluster = None if of is None else lease.cluster_of(of["incarnation"])
        return Held(
            pid=running["pid"] if running is not None else None,
            exits=report.get("exits", 0),
            last_exit=last
            and Exit(code=last.get("code"), signal=last.get("signal"), lines=tuple(last["lines"])),
            blocked=report.get("blocked"),
            cluster=cluster,
            unleased=report.get("unleased", False),
            refused=report.get("refused"),
            lease_until=Instant(lease.deadline(self._folder, cluster)) if cluster else None,
            stopping=order is not None and order.get("stop", False),
            down=running is None and report.get("down", False),
            server=running.get("server") if running is not None else None,
        )

    async def _order(self, order: dict[str, object]) -> None:
        if await trio.to_thread.run_sync(self._write_order, order) or not self._has_supervisor():
            await self._wake_supervisor()

    def new_lines(self) -> list[str]:
        size = processes.size_of(self._log)
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
        program = [sys.executable, "-I", "-S", str(PROGRAM), str(self._folder)]
        result = await trio.run_process(program, check=False, stdin=None)
        if result.returncode != 0:
            raise OSError(errno.EIO, f"the supervisor of k3s ended with {result.returncode}")
