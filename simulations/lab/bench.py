"""Measures the mesh and the ledger with real daemons, beside the targets of the design.

The nodes have `p2p.role: none`: no k3s runs, so what is counted is meshd's own. All daemons share
this machine's processors with the measuring, so times are upper bounds; the load is recorded, and
beside the times stand counts, which depend on it less.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import yaml

from meshd.cli.client import Client
from meshd.errors import MeshdError
from simulations.lab import glance, laboratory, network
from simulations.lab.cloudconfig import generate
from simulations.lab.figures import Figure, as_json, joined, table
from simulations.lab.gauges import (
    cpu_s,
    daemon_of,
    datagrams,
    links_made_and_ended,
    memory_mib,
    wakeups,
)
from simulations.lab.glance import Json
from simulations.lab.inside import init_of, run_dir
from simulations.lab.laboratory import Laboratory, Wanted
from simulations.lab.places import NodePlaces, Places
from simulations.lab.progress import Checklist

LIMIT_S = 60.0
SETTLED_FOR_S = 20.0
"""So long the ledgers must be the same and all nodes quiet before the network counts as settled."""

SETTLED_BEACONS_MAX = 2
"""A node that sends no more in that time beacons at its slow rate, or nearly: the pauses are 2 s at
first, then 4, 8, 16 and 30 s."""

_POLL_S = 0.02  # A look costs a daemon some 4 ms; more of them would slow what they wait for.

Part = Literal["start", "cold", "idle", "writes", "newcomers"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What is measured and how much of it."""

    sizes: tuple[int, ...] = (3, 10, 30)
    parts: tuple[Part, ...] = PARTS
    starts: int = 3
    newcomers: int = 10
    writes: int = 60
    idle_s: float = 60.0
    settles: bool = True


QUICK = Effort(sizes=(3,), starts=1, newcomers=2, writes=5, idle_s=3.0, settles=False)

# From the design of the ledger; by number of nodes.
_COLD_START_S = {3: 1.0, 10: 1.4, 30: 5.0}
_WRITE_S = {3: 0.05, 10: 0.1, 30: 0.5}
_IDLE_KB_S = {3: 0.5, 10: 2.0, 30: 2.5}


def measure(places: Places, effort: Effort, checklist: Checklist) -> tuple[Figure, ...]:
    """Measure everything that is wanted; the laboratory is removed again."""
    figures: list[Figure] = []
    if "start" in effort.parts:
        figures += _measure_start(places, effort)
        checklist.done(f"{effort.starts} starts of one daemon")
    for nodes in effort.sizes if set(effort.parts) - {"start"} else ():
        starts = effort.starts if "cold" in effort.parts else 1
        for _ in range(starts - 1):
            with _nodes(places, nodes) as built:
                figures += _cold_start(built, nodes)
        with _nodes(places, nodes, spare=1) as built:
            figures += _cold_start(built, nodes)
            checklist.done(f"{nodes} nodes: {starts} cold starts")
            figures += _at_work(built, nodes, effort, checklist)
    return joined(figures)


def _at_work(
    built: Laboratory, nodes: int, effort: Effort, checklist: Checklist
) -> Iterator[Figure]:
    if "idle" in effort.parts:
        if effort.settles:
            yield _settle(built, nodes)
            checklist.done(f"{nodes} nodes: settled")
        yield from _idle(built, nodes, effort.idle_s)
        checklist.done(f"{nodes} nodes: {effort.idle_s:.0f} s idle")
    if "writes" in effort.parts:
        yield _writes(built, nodes, effort.writes)
        checklist.done(f"{nodes} nodes: {effort.writes} writes")
    if "newcomers" in effort.parts:
        yield from _newcomers(built, nodes, effort.newcomers)
        checklist.done(f"{nodes} nodes: {effort.newcomers} newcomers")


@contextmanager
def _nodes(
    places: Places, nodes: int, *, spare: int = 0, forks: bool = True
) -> Iterator[Laboratory]:
    """Make machines that run no k3s; they are off."""
    folder = places.folder.parent
    config = folder / f"{places.lab}.yaml"
    text = generate(nodes=nodes + spare, control_plane=1, k3s="stand-in", vip=places.vip)
    content = yaml.safe_load(text)
    content["p2p"]["role"] = "none"
    del content["kubevip"]
    folder.mkdir(mode=0o700, exist_ok=True)
    config.write_text("#cloud-config\n" + yaml.safe_dump(content), encoding="utf-8")
    try:
        wanted = Wanted(nodes=nodes + spare, config=config, forks=forks, boots=False)
        yield Laboratory.up(places, wanted, {})
    finally:
        config.unlink()
        laboratory.down(places)


def _measure_start(places: Places, effort: Effort) -> Iterator[Figure]:
    """Start one daemon as a program of its own, and as a fork with its imports done."""
    for forks, what in ((False, "process start to listening"), (True, "… without imports")):
        values = []
        with _nodes(places, 1, forks=forks) as built:
            node = built.node("n1")
            for _ in range(effort.starts):
                node.log.unlink(missing_ok=True)
                begun = datetime.now(UTC)
                built.start("n1")
                values.append((_listening_since(node) - begun).total_seconds())
                built.kill("n1")
        target = None if forks else 1.5
        yield Figure(what=what, nodes=1, unit="s", values=tuple(values), shown="p50", target=target)


def _listening_since(node: NodePlaces) -> datetime:
    """Return when a daemon said that it listens, by its log."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        lines = node.log.read_text(encoding="utf-8").splitlines() if node.log.exists() else []
        for line in lines:
            fields = json.loads(line) if line.endswith("}") else {}
            if fields.get("event") == "listening":
                return datetime.fromisoformat(fields["ts"])
        time.sleep(_POLL_S)
    raise MeshdError(
        "MESH-8011",
        f"{node.name} did not listen within {LIMIT_S:.0f} s",
        fix=f"see {node.log}",
    )


def _cold_start(built: Laboratory, nodes: int) -> Iterator[Figure]:
    """Boot all at once; until every node sees all.

    What the processors did until then is the least that any such start takes on this machine.
    """
    names = built.known.names()[:nodes]
    begun = time.monotonic()
    for name in names:
        built.start(name)
    for name in names:
        _until(f"{name} to see all", partial(_sees, built.node(name), *names))
    took_s = time.monotonic() - begun
    busy_s = [cpu_s(daemon_of(built.node(name))) for name in names]
    links = [links_made_and_ended(built.node(name)) for name in names]
    least_s = sum(busy_s) / (os.cpu_count() or 1)
    kinds: tuple[tuple[str, str, list[float], float | None], ...] = (
        ("cold start: all see all", "s", [took_s], _COLD_START_S.get(nodes)),
        ("… processor time of all, by processors", "s", [least_s], None),
        ("… processor time of a node", "s", busy_s, None),
        ("… links made by a node", "", [float(made) for made, _ in links], None),
    )
    for what, unit, values, target in kinds:
        yield Figure(
            what=what, nodes=nodes, unit=unit, values=tuple(values), shown="p50", target=target
        )


def _settle(built: Laboratory, nodes: int) -> Figure:
    """Wait until the ledgers stay the same and beacons are sent at their slow rate."""
    running = [built.node(name) for name in built.known.names()[:nodes]]
    begun = time.monotonic()
    while True:
        before = _roots(running), [datagrams(daemon_of(node)) for node in running]
        time.sleep(SETTLED_FOR_S)
        roots, sent = _roots(running), [datagrams(daemon_of(node)) for node in running]
        most = max(now - then for now, then in zip(sent, before[1], strict=True))
        if len(roots) == 1 and roots == before[0] and most <= SETTLED_BEACONS_MAX:
            break
        if time.monotonic() - begun > 4 * LIMIT_S:
            raise MeshdError(
                "MESH-8011",
                f"{nodes} nodes did not settle within {4 * LIMIT_S:.0f} s",
                cause=f"{len(roots)} ledgers; a node sent {most} beacons in {SETTLED_FOR_S:.0f} s",
                fix="see the nodes' logs",
            )
    took_s = time.monotonic() - begun
    return Figure(what="settled after", nodes=nodes, unit="s", values=(took_s,), shown="p50")


def _roots(running: Sequence[NodePlaces]) -> set[str]:
    return {str(_status(node)["ledger"]["root"]) for node in running}


def _idle(built: Laboratory, nodes: int, idle_s: float) -> Iterator[Figure]:
    """Count bytes, processor time and wake-ups while nothing happens."""
    running = [built.node(name) for name in built.known.names()[:nodes]]
    pids = [daemon_of(node) for node in running]

    def readings() -> list[list[float]]:
        return [
            [network.received_bytes(node) / 1000 for node in running],
            [100 * cpu_s(pid) for pid in pids],
            [float(wakeups(pid)) for pid in pids],
        ]

    begun, before = time.monotonic(), readings()
    time.sleep(idle_s)
    took_s, after = time.monotonic() - begun, readings()
    received, busy, woken = (
        [(now - then) / took_s for now, then in zip(of_now, of_then, strict=True)]
        for of_now, of_then in zip(after, before, strict=True)
    )
    kinds: tuple[tuple[str, str, list[float], float | None], ...] = (
        ("idle, received per node", "KB/s", received, _IDLE_KB_S.get(nodes)),
        ("idle, processor per node", "% of a core", busy, 0.5),
        ("idle, wake-ups per node", "/s", woken, None),
        ("resident memory per node", "MiB", [memory_mib(pid, "Rss") for pid in pids], 120.0),
        ("… its share of shared pages", "MiB", [memory_mib(pid, "Pss") for pid in pids], None),
    )
    for what, unit, values, target in kinds:
        yield Figure(
            what=what, nodes=nodes, unit=unit, values=tuple(values), shown="max", target=target
        )


def _writes(built: Laboratory, nodes: int, writes: int) -> Figure:
    """Change one node's facts by an address on its interface; until the last node has the entry.

    Counted from the stamp that the author put on the entry (whole milliseconds, the same clock).
    """
    author, *others = [built.node(name) for name in built.known.names()[:nodes]]
    key = f"node/{_status(author)['node']['id']}/facts"
    seq, values = _entry(author, key)["seq"], []
    for number in range(writes):
        # A host route would be taken for a VIP, which is nobody's own address.
        address = f"10.9.0.{number // 2 % 250 + 1}/24"
        network.change_address(author, "del" if number % 2 else "add", address)
        _until("the author to write", partial(_has, author, key, seq + 1))
        entry = _entry(author, key)
        seq = entry["seq"]
        for node in others:
            _until("a write to arrive", partial(_has, node, key, seq))
        values.append(datetime.now(UTC).timestamp() - entry["stamp_ms"] / 1000)
    return Figure(
        what="a write reaches the last node",
        nodes=nodes,
        unit="s",
        values=tuple(values),
        shown="p99",
        target=_WRITE_S.get(nodes),
    )


def _newcomers(built: Laboratory, nodes: int, newcomers: int) -> Iterator[Figure]:
    """Boot a machine with an empty disk, again and again."""
    *names, spare = built.known.names()[: nodes + 1]
    node, others = built.node(spare), [built.node(name) for name in names]
    sees, seen = [], []
    for _ in range(newcomers):
        begun = time.monotonic()
        built.start(spare)
        _until("the newcomer to see all", partial(_sees, node, *names, spare))
        sees.append(time.monotonic() - begun)
        for other in others:
            _until("all to see the newcomer", partial(_sees, other, spare))
        seen.append(time.monotonic() - begun)
        built.kill(spare)
        built.wipe(spare)
        for other in others:
            _until("all to miss it", partial(_misses, other, spare))
    targets: tuple[tuple[Literal["p50", "p95"], float], ...] = (("p50", 0.5), ("p95", 1.2))
    for shown, target in targets:
        for what, values in (("newcomer sees all", sees), ("newcomer is seen by all", seen)):
            yield Figure(
                what=f"{what}, {shown}",
                nodes=nodes,
                unit="s",
                values=tuple(values),
                shown=shown,
                target=target,
            )


def _until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise MeshdError(
                "MESH-8011", f"not seen within {LIMIT_S:.0f} s: {what}", fix="see the nodes' logs"
            )
        time.sleep(_POLL_S)


def _status(node: NodePlaces) -> Json:
    return _client(node).get("/v1/status")


def _entry(node: NodePlaces, key: str) -> Json:
    """Return a register as a node has it; one without value if it has none."""
    rows = _client(node).get("/v1/ledger/get", key=key)["entries"]
    return dict(rows[0]) if rows else {"seq": -1, "stamp_ms": 0}


def _has(node: NodePlaces, key: str, seq: int) -> bool:
    return int(_entry(node, key)["seq"]) >= seq


def _sees(node: NodePlaces, *names: str) -> bool:
    return _alive(node) >= set(names)


def _misses(node: NodePlaces, name: str) -> bool:
    return name not in _alive(node)


def _alive(node: NodePlaces) -> set[str]:
    """Return the machines that a node sees alive; none while it does not answer."""
    try:
        status = _status(node)
    except MeshdError:
        return set()
    return {glance.machine_of(one["name"]) for one in status["nodes"] if one["state"] == "alive"}


def _client(node: NodePlaces) -> Client:
    init = init_of(node)
    assert init is not None, f"{node.name} is down"
    return Client(run_dir(init))


def run(places: Places, effort: Effort, output: Path) -> int:
    """Measure, print the table, write the JSON; return 0 whether targets are met or not."""
    checklist = Checklist()
    load = {"before": os.getloadavg()[0]}
    figures = measure(places, effort, checklist)
    load["after"] = os.getloadavg()[0]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(as_json(figures, load), indent=1) + "\n", encoding="utf-8")
    print(table(figures))
    print(f"load average {load['before']:.1f} before, {load['after']:.1f} after; JSON: {output}")
    return 0
