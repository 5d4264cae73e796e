"""Measures the mesh and the ledger with real daemons, beside the targets of the design.

The nodes have `p2p.role: none`: no k3s runs, so what is counted is meshd's own. All daemons share
this machine's processors with the measuring, so times are upper bounds; the load is recorded.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import yaml

from meshd.cli.client import Client
from meshd.errors import MeshdError
from simulations.lab import laboratory, network
from simulations.lab.cloudconfig import generate
from simulations.lab.glance import Json
from simulations.lab.laboratory import Laboratory, Wanted, init_of, run_dir
from simulations.lab.places import NodePlaces, Places
from simulations.lab.progress import Checklist

LIMIT_S = 60.0
_POLL_S = 0.005
_SETTLE_S = 15.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity.

    Args:
        nodes: running while it was measured.
        values: all samples, in `unit`.
        shown: which of them the target is about: `max`, `p50`, `p95`, `p99`.
        target: the most it may be; None where there is none.
    """

    what: str
    nodes: int
    unit: str
    values: tuple[float, ...]
    shown: str
    target: float | None

    @property
    def value(self) -> float:
        """The one number of the samples that the target is about."""
        return percentile(self.values, {"p50": 50, "p95": 95, "p99": 99, "max": 100}[self.shown])

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.target is None else self.value <= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured."""

    sizes: tuple[int, ...] = (3, 10)
    starts: int = 3
    newcomers: int = 10
    writes: int = 100
    idle_s: float = 60.0


QUICK = Effort(sizes=(3,), starts=1, newcomers=2, writes=5, idle_s=3.0)

# From the design of the ledger; by number of nodes.
_COLD_START_S = {3: 1.0, 10: 1.4, 30: 5.0}
_WRITE_S = {3: 0.05, 10: 0.1, 30: 0.5}
_IDLE_KB_S = {3: 0.5, 10: 2.0, 30: 2.5}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile."""
    ranked = sorted(values)
    rank = max(1, -(-len(ranked) * percent // 100))
    return ranked[int(rank) - 1]


def measure(places: Places, effort: Effort, checklist: Checklist) -> tuple[Figure, ...]:
    """Measure everything; the laboratory is removed again."""
    figures = list(_measure_start(places, effort))
    checklist.done(f"{effort.starts} starts of one daemon")
    for nodes in effort.sizes:
        for _ in range(effort.starts - 1):
            with _nodes(places, nodes) as built:
                figures.append(_cold_start(built, nodes))
        with _nodes(places, nodes, spare=1) as built:
            figures.append(_cold_start(built, nodes))
            checklist.done(f"{nodes} nodes: {effort.starts} cold starts")
            figures += _idle(built, nodes, effort.idle_s)
            checklist.done(f"{nodes} nodes: {effort.idle_s:.0f} s idle")
            figures.append(_writes(built, nodes, effort.writes))
            checklist.done(f"{nodes} nodes: {effort.writes} writes")
            figures += _newcomers(built, nodes, effort.newcomers)
            checklist.done(f"{nodes} nodes: {effort.newcomers} newcomers")
    return _joined(figures)


def _joined(figures: Sequence[Figure]) -> tuple[Figure, ...]:
    """Put the samples of equal figures together."""
    found: dict[tuple[str, int], Figure] = {}
    for one in figures:
        key = (one.what, one.nodes)
        before = found[key].values if key in found else ()
        found[key] = Figure(**asdict(one) | {"values": before + one.values})
    return tuple(found.values())


@contextmanager
def _nodes(
    places: Places, nodes: int, *, spare: int = 0, forks: bool = True
) -> Iterator[Laboratory]:
    """Make machines that run no k3s; they are off."""
    folder = places.folder.parent
    config = folder / f"{places.lab}.yaml"
    text = generate(nodes=nodes + spare, control_plane=1, real_k3s=False, vip=places.vip)
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


def _cold_start(built: Laboratory, nodes: int) -> Figure:
    """Boot all at once; until every node sees all."""
    names = built.known.names()[:nodes]
    begun = time.monotonic()
    for name in names:
        built.start(name)
    for name in names:
        _until(f"{name} to see all", partial(_sees, built.node(name), *names))
    return Figure(
        what="cold start: all see all",
        nodes=nodes,
        unit="s",
        values=(time.monotonic() - begun,),
        shown="p50",
        target=_COLD_START_S.get(nodes),
    )


def _idle(built: Laboratory, nodes: int, idle_s: float) -> Iterator[Figure]:
    """Count bytes and processor time while nothing happens."""
    time.sleep(min(_SETTLE_S, idle_s))
    running = [built.node(name) for name in built.known.names()[:nodes]]
    pids = [_daemon_of(node) for node in running]
    begun = time.monotonic()
    bytes_before = [network.received_bytes(node) for node in running]
    cpu_before = [_cpu_s(pid) for pid in pids]
    time.sleep(idle_s)
    took_s = time.monotonic() - begun
    received = [
        (network.received_bytes(node) - before) / took_s / 1000
        for node, before in zip(running, bytes_before, strict=True)
    ]
    cpu = [
        100 * (_cpu_s(pid) - before) / took_s for pid, before in zip(pids, cpu_before, strict=True)
    ]
    kinds: tuple[tuple[str, str, list[float], float | None], ...] = (
        ("idle, received per node", "KB/s", received, _IDLE_KB_S.get(nodes)),
        ("idle, processor per node", "% of a core", cpu, 0.5),
        ("resident memory per node", "MiB", [_memory_mib(pid, "Rss") for pid in pids], 120.0),
        ("… its share of shared pages", "MiB", [_memory_mib(pid, "Pss") for pid in pids], None),
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
    for shown, target in (("p50", 0.5), ("p95", 1.2)):
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
    """Return the names that a node sees alive; none while it does not answer."""
    try:
        status = _status(node)
    except MeshdError:
        return set()
    return {str(one["name"]) for one in status["nodes"] if one["state"] == "alive"}


def _client(node: NodePlaces) -> Client:
    init = init_of(node)
    assert init is not None, f"{node.name} is down"
    return Client(run_dir(init))


def _daemon_of(node: NodePlaces) -> int:
    init = init_of(node)
    children = Path(f"/proc/{init}/task/{init}/children").read_text(encoding="ascii").split()
    return int(children[0])


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _memory_mib(pid: int, kind: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(kind)


def table(figures: Sequence[Figure]) -> str:
    """Return the figures beside their targets, for people."""
    lines = [f"{'':<34}{'nodes':>5}  {'measured':>22}  {'median':>8}  {'target':>8}"]
    for one in figures:
        measured = f"{one.shown} {one.value:.3g} {one.unit}"
        target = "" if one.target is None else f"{one.target:g}"
        verdict = {True: "met", False: "MISSED", None: ""}[one.is_met]
        median = statistics.median(one.values)
        lines.append(
            f"{one.what:<34}{one.nodes:>5}  {measured:>22}  {median:>8.3g}  {target:>8}  {verdict}"
        )
    return "\n".join(line.rstrip() for line in lines)


def as_json(figures: Sequence[Figure], load: Mapping[str, float]) -> Json:
    """Return everything measured, and where."""
    return {
        "api_version": "meshd/v1",
        "kind": "Bench",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpus": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load": dict(load),
        },
        "figures": [asdict(one) | {"value": one.value, "met": one.is_met} for one in figures],
    }


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
