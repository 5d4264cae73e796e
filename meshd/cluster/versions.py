"""Whether this machine's k3s may join the cluster's servers: by their minor versions. Pure.

All servers have the same one, and a worker's is not newer than theirs (Kubernetes, "Version Skew
Policy"; k3s' servers check more than the API at a join). Only a first start is kept waiting: an
upgrade passes through versions that differ, and a member of a cluster is never kept from starting.
"""

from __future__ import annotations

import re
from typing import Literal

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
