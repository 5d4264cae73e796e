"""Whether this machine's k3s may join the cluster's servers: by their minor versions.

All servers have the same one, and a worker's is not newer than theirs (Kubernetes, "Version Skew
Policy"; k3s' servers check more than the API at a join). Only a first start is kept waiting: an
upgrade passes through versions that differ, and a member of a cluster is never kept from starting.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog
import trio

VERSION_TIMEOUT_S = 10.0

_LOG: structlog.typing.FilteringBoundLogger = structlog.get_logger()

_MINOR = re.compile(r"v?(\d+)\.(\d+)(?:\D|$)")


def minor_of(version: str) -> tuple[int, int] | None:
    """Return (1, 34) of "v1.34.1+k3s1"; None if it says no version."""
    match = _MINOR.match(version)
    return None if match is None else (int(match[1]), int(match[2]))


def unfit(own: str, servers: str, seat: Literal["initialiser", "server", "worker"]) -> str | None:
    """Return why k3s of version `own` should not join servers of version `servers`, or None."""
    ours, theirs = minor_of(own), minor_of(servers)
    if ours is None or theirs is None or ours == theirs:
        return None
    if seat == "worker" and ours < theirs:
        return None
    rule = "not be newer" if seat == "worker" else "be of the same minor version"
    return f"k3s here is {own} and on the servers {servers}: it must {rule}; install theirs"


class InstalledVersion:
    """The version of the k3s installed, asked once per binary; a stand-in says here that it is one.

    Args:
        find: returns the binary, or None.
    """

    def __init__(self, find: Callable[[], Path | None]) -> None:
        self._find = find
        self._known: tuple[str, str] | None = None

    async def read(self) -> str:
        """Return what the binary says that it is, or "" if it does not say."""
        binary = self._find()
        if binary is None or not binary.exists():
            return ""
        file = f"{binary} {binary.stat().st_mtime_ns}"
        if self._known is None or self._known[0] != file:
            self._known = file, await _ask(binary)
        return self._known[1]


async def _ask(binary: Path) -> str:
    with trio.move_on_after(VERSION_TIMEOUT_S):
        try:
            done = await trio.run_process(
                [str(binary), "--version"], capture_stdout=True, capture_stderr=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            _LOG.warning("k3s_version_unknown", error=str(error))
        else:
            first = done.stdout.decode(errors="replace").partition("\n")[0]
            return first.removeprefix("k3s version ").strip()
    return ""
