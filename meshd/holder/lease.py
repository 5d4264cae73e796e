"""The forming lease as it lies in the supervisor's folder: until when k3s of which cluster may run.

    lease.json    cluster, boot id, `until`: seconds on CLOCK_BOOTTIME, or null for no limit

Written by the daemon, obeyed by supervisor, fuse and gate. Invariant: what it allows one cluster
never shrinks within a boot. A file of another boot or another cluster allows nothing, and neither
does none: who may not run is killed.
"""

from __future__ import annotations

import math
from pathlib import Path

from meshd.holder.processes import boot_id, boot_time_s, read_json, write_json

START_MIN_S = 30.0
"""k3s is started only while at least this much is left (docs/genesis.md)."""


def cluster_of(incarnation: str) -> str:
    """Return the id of the cluster that an incarnation of k3s belongs to."""
    return incarnation.partition("/")[0]


def deadline(folder: Path, cluster: str) -> float:
    """Return until when k3s of the cluster may run: CLOCK_BOOTTIME, infinite, or 0 for never.

    A file that cannot be read allows nothing.
    """
    try:
        lease = read_json(folder / "lease.json")
    except OSError:
        return 0.0
    if lease is None or lease.get("cluster") != cluster or lease.get("boot_id") != boot_id():
        return 0.0
    return math.inf if lease["until"] is None else float(lease["until"])


def left_s(folder: Path, cluster: str) -> float:
    """Return how many seconds are left; 0 or less if the lease is over."""
    return deadline(folder, cluster) - boot_time_s()


def extend(folder: Path, cluster: str, until: float | None) -> bool:
    """Allow more; return whether anything changed. None: no limit any more.

    Raises:
        OSError: the disk refuses; then k3s ends when what was allowed before does.
    """
    if (math.inf if until is None else until) <= deadline(folder, cluster):
        return False
    record = {"cluster": cluster, "boot_id": boot_id(), "until": until}
    write_json(folder / "lease.json", record)
    return True
