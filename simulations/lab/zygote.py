"""The zygote: imports the daemon once, then forks it into each node that is booted.

30 daemons start in the time of one import, and share its memory. It outlives the command that
started it and is found by its socket: whoever listens there is the zygote. Single-threaded, so that
a fork copies no lock that somebody holds.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from meshd.errors import MeshdError
from simulations.lab import kernel, recorder
from simulations.lab.boot import Boot, Daemon, become_node
from simulations.lab.places import Places

BOOT_S = 20.0
_MESSAGE_BYTES_MAX = 1 << 20


class Zygote:
    """Asks the zygote of a laboratory."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def start(self, *, forks: bool) -> float:
        """Start the zygote, detached; return the seconds that its imports took.

        Args:
            forks: false for a laboratory whose daemons are programs of their own; then nothing
                is imported.

        Raises:
            MeshdError: it did not come up.
        """
        with self._places.zygote_log.open("ab") as log:
            started = subprocess.run(
                [sys.executable, "-m", __name__, *_arguments(self._places, forks=forks)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
                cwd="/",
            )
        if started.returncode != 0:
            raise MeshdError(
                "MESH-8010",
                "the laboratory's own process did not start",
                cause=_last_line(self._places.zygote_log),
                fix="run `python -c 'import meshd.daemon'` to see whether meshd can be imported",
            )
        return float(self._ask({"verb": "hello"})["imports_s"])

    def boot(self, boot: Boot) -> int:
        """Boot a node; return the number of its first process.

        Raises:
            MeshdError: the zygote is gone, or the node's machine could not be made.
        """
        answer = self._ask({"verb": "boot", "boot": asdict(boot)})
        if "error" in answer:
            raise MeshdError(
                "MESH-8010",
                f"{boot.name} cannot be booted",
                cause=str(answer["error"]),
                fix=f"see {boot.log}; `meshd demo down` removes the laboratory",
            )
        return int(answer["pid"])

    def stop(self) -> None:
        """End the zygote and the recorder, if they live."""
        pid = self._pid()
        if pid is None:
            return
        zygote = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(zygote, signal.SIGKILL)
            select.select([zygote], [], [], BOOT_S)  # Readable once it has ended.
        except ProcessLookupError:
            pass
        finally:
            os.close(zygote)

    def _pid(self) -> int | None:
        """Return who listens on the socket (SO_PEERCRED, unix(7)); None if nobody does."""
        try:
            with self._connect() as connection:
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return None
        return int(struct.unpack("3i", credentials)[0])

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(BOOT_S)
        try:
            connection.connect(str(self._places.zygote_socket))
        except OSError:
            connection.close()
            raise
        return connection

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._connect() as connection:
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as file:
                    answer = json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise MeshdError(
                "MESH-8010",
                "the laboratory's own process does not answer",
                cause=str(error),
                fix="`meshd demo down`, then `meshd demo up`",
            ) from None
        assert isinstance(answer, dict)
        return answer


def _arguments(places: Places, *, forks: bool) -> tuple[str, ...]:
    how = "fork" if forks else "exec"
    return (places.lab, how, "ipv6") if places.ipv6 else (places.lab, how)


def _last_line(path: Path) -> str | None:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else None


def main(places: Places, *, forks: bool) -> int:
    """Start the zygote in the background; return when it listens, or 1 if it failed."""
    told, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        os.setsid()
        serve(places, ready, forks=forks)
    os.close(ready)
    with os.fdopen(told, "rb") as file:
        return 0 if file.read() == b"ok" else 1


def serve(places: Places, ready: int, *, forks: bool) -> NoReturn:
    """Be the zygote until killed; write "ok" to `ready` once it listens."""
    # What nodes leave behind when they are killed is buried by the kernel.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    kernel.adopt_orphans()
    _fork_recorder(places, ready)
    started = time.monotonic()
    daemon = _import_daemon() if forks else None
    imports_s = time.monotonic() - started
    gc.collect()
    gc.freeze()
    kernel.name_process("meshd-zygote")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(places.zygote_socket))
    listener.listen(16)
    os.write(ready, b"ok")
    os.close(ready)
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(BOOT_S)
            try:
                _answer(connection, listener, daemon, imports_s)
            except (OSError, ValueError) as error:
                print(f"a request failed: {error}", file=sys.stderr, flush=True)


def _import_daemon() -> Daemon:
    from meshd.daemon import run_daemon  # noqa: PLC0415 - Timed, and only where it is forked.

    def daemon(config: Sequence[Path], state_dir: Path, run_dir: Path) -> int:
        return run_daemon(config=config, state_dir=state_dir, run_dir=run_dir)

    return daemon


def _fork_recorder(places: Places, ready: int) -> None:
    if os.fork():
        return
    os.close(ready)
    kernel.die_with_parent(signal.SIGKILL)
    kernel.name_process("meshd-recorder")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    recorder.record(places)


def _answer(
    connection: socket.socket, listener: socket.socket, daemon: Daemon | None, imports_s: float
) -> None:
    with connection.makefile("rb") as file:
        request = json.loads(file.readline(_MESSAGE_BYTES_MAX))
    if request["verb"] == "hello":
        answer: dict[str, Any] = {"imports_s": imports_s}
    else:
        fields = request["boot"]
        for name in ("binds", "read_only"):
            fields[name] = tuple(tuple(bind) for bind in fields[name])
        fields["argv"] = tuple(fields["argv"])
        answer = _boot(Boot(**fields), daemon, (connection, listener))
    connection.sendall(json.dumps(answer).encode() + b"\n")


def _boot(boot: Boot, daemon: Daemon | None, ours: tuple[socket.socket, ...]) -> dict[str, Any]:
    told, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        for one in ours:
            one.close()
        become_node(boot, daemon, ready)
    os.close(ready)
    with os.fdopen(told, "rb") as file:
        said = file.read()
    return {"pid": pid} if said == b"ok" else {"error": said.decode() or "it ended at once"}


if __name__ == "__main__":
    _places = Places(sys.argv[1], ipv6="ipv6" in sys.argv[3:])
    raise SystemExit(main(_places, forks=sys.argv[2] == "fork"))
