"""Measures how long a real k3s takes from power-on to a whole cluster: with meshd, and without.

Without meshd the nodes run k3s' own commands, all known beforehand and started at once; a server
that ends is started again after 5 s, as k3s' unit does. Runs alternate, so that both kinds meet the
same machine.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from meshd.cluster.manifests import kube_vip_daemon_set
from meshd.config.schema import KubeVip
from meshd.errors import MeshdError
from simulations.lab import cloudconfig, laboratory, tour
from simulations.lab.laboratory import Laboratory, Wanted
from simulations.lab.places import NodePlaces, Places
from simulations.lab.progress import Checklist
from simulations.lab.servers import Unanswered, server_on

LIMIT_S = 600.0
_POLL_S = 0.1
_SERVERS = 3

Way = Literal["meshd", "k3s' own commands"]
Times = dict[str, float]
WAYS: tuple[Way, ...] = ("k3s' own commands", "meshd")


def measure(
    places: Places, wanted: Wanted, runs: int, checklist: Checklist
) -> dict[Way, list[Times]]:
    """Form a cluster `runs` times in each way; return the seconds from power-on by milestone.

    Raises:
        MeshdError: a laboratory cannot be built, or a milestone was not reached in 10 minutes.
    """
    found: dict[Way, list[Times]] = {way: [] for way in WAYS}
    for number in range(runs):
        for way in WAYS:
            try:
                built = Laboratory.up(places, wanted, {})
                found[way].append(_form(built, way))
            finally:
                laboratory.down(places)
            checklist.done(f"run {number + 1} with {way}")
    return found


def _form(built: Laboratory, way: Way) -> Times:
    programs: Mapping[str, tuple[str, ...]] = {}
    if way != "meshd":
        programs = commands(built.nodes(), built.places.binaries / "k3s")
        _lay_kube_vip(built.node("n1"))
    begun = time.monotonic()
    for name in built.known.names():
        built.start(name, program=programs.get(name, ()))
    times: Times = {}
    waiting = _milestones(built)
    while waiting:
        for what in [what for what, is_reached in waiting.items() if is_reached()]:
            times[what] = time.monotonic() - begun
            del waiting[what]
        if time.monotonic() - begun > LIMIT_S:
            raise MeshdError(
                "MESH-8011",
                f"not seen within {LIMIT_S:.0f} s with {way}: {', '.join(waiting)}",
                fix=f"see the logs of the nodes below {built.places.folder}",
            )
        time.sleep(_POLL_S)
    return times


def _milestones(built: Laboratory) -> dict[str, Callable[[], bool]]:
    voters: dict[str, Callable[[], bool]] = {
        f"etcd has {count} of {_SERVERS} voters": partial(_has_voters, built, count)
        for count in range(1, _SERVERS + 1)
    }
    return voters | {
        "all Nodes Ready": partial(_are_ready, built),
        "the VIP answers on 6443": lambda: tour.holder_that_answers(built) is not None,
    }


def commands(nodes: Sequence[NodePlaces], binary: Path) -> dict[str, tuple[str, ...]]:
    """Return what an operator would type on each node: the first begins, two join, others work."""
    password, agents = secrets.token_hex(16), secrets.token_hex(16)
    first = nodes[0]
    joins = ("--server", f"https://{first.address}:6443")
    found = {}
    for number, node in enumerate(nodes):
        own = ("--node-name", node.name, "--node-ip", node.address)
        if number < _SERVERS:
            start = ("--cluster-init",) if node == first else joins
            tokens = ("--token", password, "--agent-token", agents, "--tls-san", first.places.vip)
            found[node.name] = ("server", *start, *tokens, *own, *cloudconfig.SERVER_ARGS)
        else:
            found[node.name] = ("agent", *joins, "--token", agents, *own, *cloudconfig.AGENT_ARGS)
    return {name: (str(binary), *arguments) for name, arguments in found.items()}


def _lay_kube_vip(node: NodePlaces) -> None:
    folder = node.k3s_folder / "server" / "manifests"
    folder.mkdir(parents=True)
    (folder / "kube-vip.yaml").write_bytes(
        kube_vip_daemon_set(KubeVip(address=node.places.vip), "eth0")
    )


def _has_voters(built: Laboratory, count: int) -> bool:
    for node in built.nodes():
        try:
            if len(server_on(node).voters()) >= count:
                return True
        except Unanswered:
            continue
    return False


def _are_ready(built: Laboratory) -> bool:
    for node in built.nodes():
        try:
            with closing(server_on(node)) as server:
                items = server.get("/api/v1/nodes")["items"]
        except Unanswered:
            continue
        conditions = [one for item in items for one in item["status"]["conditions"]]
        ready = [one for one in conditions if (one["type"], one["status"]) == ("Ready", "True")]
        return len(ready) == len(built.known.nodes)
    return False


def table(found: Mapping[Way, Sequence[Times]]) -> str:
    """Return the median of each milestone in each way, its spread, and how they compare."""
    bare, ours = WAYS
    lines = [f"{'seconds from power-on':<28}{bare:>24}{ours:>24}{'ratio':>8}"]
    for what in sorted(found[bare][0], key=lambda name: _median(found[bare], name)):
        cells = [f"{_median(found[way], what):.1f} ({_spread(found[way], what)})" for way in WAYS]
        ratio = _median(found[ours], what) / _median(found[bare], what)
        lines.append(f"{what:<28}{cells[0]:>24}{cells[1]:>24}{ratio:>8.2f}")
    return "\n".join(lines)


def _median(runs: Sequence[Times], what: str) -> float:
    return statistics.median(run[what] for run in runs)


def _spread(runs: Sequence[Times], what: str) -> str:
    return f"{min(run[what] for run in runs):.1f}-{max(run[what] for run in runs):.1f}"


def run(places: Places, wanted: Wanted, runs: int, output: Path) -> int:
    """Measure, print the table, write the JSON; return 0 whatever the figures are."""
    load = os.getloadavg()[0]
    found = measure(places, wanted, runs, Checklist())
    content = {
        "api_version": "meshd/v1",
        "kind": "FormationBench",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
        "load": {"before": load, "after": os.getloadavg()[0]},
        "runs": found,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    print(f"{runs} runs each: median (least-most); load average {load:.1f} before; JSON: {output}")
    return 0
