"""Watches a laboratory from outside while faults befall it: which k3s of which cluster runs where.

Looks at processes and at the supervisors' records, not at what meshd says of itself. A generation
has one cluster id, so two ids that run at one time are an abandoned cluster beside a later one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshd.holder.processes import is_alive, process_fields, read_json
from simulations.lab import network
from simulations.lab.places import NodePlaces

LOOK_S = 0.25
RESUME_GRACE_S = 2.0
"""How long a machine that was frozen as a whole may run its old k3s (docs/genesis.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """Two clusters that ran at one time; `clusters` is cluster id: nodes."""

    clusters: Mapping[str, tuple[str, ...]]
    since_s: float

    def __str__(self) -> str:
        sides = (f"{cluster[:8]} on {' '.join(on)}" for cluster, on in self.clusters.items())
        return f"{self.since_s:.1f} s after power-on k3s ran of {' and of '.join(sides)}"


class Witness:
    """Looks several times a second, on a thread of its own, from `start` to `stop`."""

    def __init__(self, nodes: tuple[NodePlaces, ...]) -> None:
        self._nodes = nodes
        self._began = time.monotonic()
        self._excused: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.looks = 0
        self.clusters: list[str] = []
        """Every cluster id of which a k3s was seen to run, in the order of their coming."""
        self.clashes: list[Clash] = []

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the last look."""
        self._stopped.set()
        self._thread.join()

    def freeze(self, node: str) -> None:
        """Be told that a whole machine stands still: what is in its memory does not run."""
        self._excused[node] = float("inf")

    def resume(self, node: str) -> None:
        """Be told that the machine goes on now."""
        self._excused[node] = time.monotonic() + RESUME_GRACE_S

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Look once at all nodes."""
        self.looks += 1
        found: dict[str, tuple[str, ...]] = {}
        for node in self._nodes:
            cluster = running_cluster(node)
            if cluster is None or time.monotonic() < self._excused.get(node.name, 0):
                continue
            found[cluster] = (*found.get(cluster, ()), node.name)
        self.clusters += [cluster for cluster in found if cluster not in self.clusters]
        if len(found) > 1:
            since_s = time.monotonic() - self._began
            self.clashes.append(Clash(clusters=found, since_s=since_s))


def running_cluster(node: NodePlaces) -> str | None:
    """Return the id of the cluster whose k3s runs on a node, by its supervisor's record."""
    record = read_json(node.state / "k3s" / "running.json")
    if record is None or not is_alive(record):
        return None
    return str(record["incarnation"]).partition("/")[0]


def daemon_of(node: NodePlaces) -> int | None:
    """Return the number of a node's daemon."""
    for pid in network.pids(node.namespace):
        if _read(pid, "comm").strip() == b"meshd" and _is_session_leader(pid):
            return pid
    return None


def supervisor_of(node: NodePlaces) -> int | None:
    """Return the number of what holds k3s on a node."""
    for pid in network.pids(node.namespace):
        arguments = _read(pid, "cmdline").split(b"\0")
        is_ours = len(arguments) > 4 and arguments[3].endswith(b"/meshd/holder")
        if is_ours and arguments[4] != b"fuse" and _is_session_leader(pid):
            return pid
    return None


def recorded(node: NodePlaces, record: str) -> int | None:
    """Return the number in `running.json` or `fuse.json`, if that process lives."""
    found = read_json(node.state / "k3s" / record)
    return int(found["pid"]) if found is not None and is_alive(found) else None


def databases(node: NodePlaces) -> int:
    """Return how many etcd run on a node."""
    return sum(_read(pid, "comm").strip() == b"etcd" for pid in network.pids(node.namespace))


def _is_session_leader(pid: int) -> bool:
    fields = process_fields(pid)
    return fields is not None and int(fields[3]) == pid


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
