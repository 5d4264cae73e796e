"""What the kernel and the logs say of a running daemon; reading it costs the daemon nothing."""

from __future__ import annotations

import os
from pathlib import Path

from simulations.lab.inside import init_of
from simulations.lab.places import NodePlaces

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def daemon_of(node: NodePlaces) -> int:
    """Return the number of a running node's daemon."""
    init = init_of(node)
    children = Path(f"/proc/{init}/task/{init}/children").read_text(encoding="ascii").split()
    return int(children[0])


def cpu_s(pid: int) -> float:
    """Return the processor time that a process took, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def memory_mib(pid: int, kind: str) -> float:
    """Return one line of proc_pid_smaps(5), such as `Rss` or `Pss`."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), f"{kind}:") / 1024


def wakeups(pid: int) -> int:
    """Return how often the main thread went to sleep."""
    return _field(Path(f"/proc/{pid}/status"), "voluntary_ctxt_switches:")


def datagrams(pid: int) -> int:
    """Return how many UDP datagrams a daemon's machine has sent: its beacons."""
    header, counts = [
        line.split()
        for line in Path(f"/proc/{pid}/net/snmp").read_text(encoding="ascii").splitlines()
        if line.startswith("Udp:")
    ]
    over_ipv4 = int(counts[header.index("OutDatagrams")])
    return over_ipv4 + _field(Path(f"/proc/{pid}/net/snmp6"), "Udp6OutDatagrams")


def links_made_and_ended(node: NodePlaces) -> tuple[int, int]:
    """Return how many links a node's log tells of, and how many ends of such."""
    text = node.log.read_text(encoding="utf-8")
    return text.count('"event": "peer_joined"'), text.count('"event": "peer_lost"')


def _field(path: Path, name: str) -> int:
    for line in path.read_text(encoding="ascii").splitlines():
        first, *rest = line.split()
        if first == name:
            return int(rest[0])
    raise AssertionError(f"no {name} in {path}")
