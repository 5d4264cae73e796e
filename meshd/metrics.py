"""`/metrics` in Prometheus' text format: plain integers as things happen, read on request.

Invariant: a label takes few values, all of them words of this program's source: never a node, a
key, an address or a text, however large the network is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from meshd.events import Channel
from meshd.figures import Figures

Direction = Literal["in", "out"]
Sample = tuple[tuple[str, ...], float]
"""Values of the labels, in their order; the figure."""

LAG_WINDOW_S = 60.0

STAGES = {
    "peer_joined": "joined",
    "claim_decided": "claimed",
    "start_decided": "started",
    "k3s_ready": "k3s_ready",
    "cluster_formed": "formed",
}
"""What in the history means that a stage is reached."""


class Lag:
    """How late the event loop was: the worst of the last one to two minutes."""

    def __init__(self) -> None:
        self._since = 0.0
        self._worst = (0.0, 0.0)  # Of the window before, and of this one.

    def note(self, late_s: float, now: float) -> None:
        """Take in that something due was this late."""
        if now - self._since >= LAG_WINDOW_S:
            passed = now - self._since >= 2 * LAG_WINDOW_S
            self._since, self._worst = now, (0.0 if passed else self._worst[1], 0.0)
        self._worst = self._worst[0], max(self._worst[1], late_s)

    @property
    def worst_s(self) -> float:
        return max(self._worst)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What is counted from the start of the daemon on; whoever sees it happen adds to it."""

    started_at: float
    frames: Counter[tuple[Channel, Direction]] = field(default_factory=Counter)
    bytes: Counter[tuple[Channel, Direction]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    stages: dict[str, float] = field(default_factory=dict)
    lag: Lag = field(default_factory=Lag)

    def frame(self, channel: Channel, direction: Direction, size: int) -> None:
        """Count a frame."""
        self.frames[channel, direction] += 1
        self.bytes[channel, direction] += size

    def note(self, kind: str, now: float) -> None:
        """Count a line of the history."""
        self.notes[kind] += 1
        if kind in STAGES:
            self.reached(STAGES[kind], now)

    def reached(self, stage: str, now: float) -> None:
        """Take down when a stage was reached first."""
        self.stages.setdefault(stage, max(0.0, now - self.started_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that `/metrics` is made from."""

    figures: Figures
    tally: Tally
    version: str
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: how it is called, what it means, and its samples in a snapshot."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    read: Callable[[Snapshot], Iterable[Sample]]
    labels: tuple[str, ...] = ()


def _one(value: float | None) -> list[Sample]:
    return [] if value is None else [((), float(value))]


def _frames(counts: Counter[tuple[Channel, Direction]]) -> Iterator[Sample]:
    directions: tuple[Direction, ...] = ("in", "out")
    for channel in Channel:
        for direction in directions:
            yield (direction, channel.value), float(counts[channel, direction])


METRICS: tuple[Metric, ...] = (
    Metric(
        name="meshd_build_info",
        kind="gauge",
        help="Always 1; the version of meshd.",
        labels=("version",),
        read=lambda of: [((of.version,), 1.0)],
    ),
    Metric(
        name="meshd_uptime_seconds",
        kind="gauge",
        help="Since the daemon began its work; imports are not counted.",
        read=lambda of: _one(of.now - of.tally.started_at),
    ),
    Metric(
        name="meshd_role_info",
        kind="gauge",
        help="Always 1; what this node is: control-plane, worker, none (p2p.role), or undecided.",
        labels=("role",),
        read=lambda of: [((of.figures.role,), 1.0)],
    ),
    Metric(
        name="meshd_role_transitions_total",
        kind="counter",
        help="How often this node was given a role since the daemon's start. What a restarted "
        "daemon learns again from its disk counts too, so 1 is normal.",
        read=lambda of: _one(of.tally.notes["role_decided"]),
    ),
    Metric(
        name="meshd_phase_info",
        kind="gauge",
        help="Always 1; `node.phase` and `genesis.phase` of status.",
        labels=("phase", "genesis"),
        read=lambda of: [((of.figures.phase, of.figures.genesis_phase), 1.0)],
    ),
    Metric(
        name="meshd_generation",
        kind="gauge",
        help="The generation of the decision log; above 1 once an earlier "
        "start of the cluster was given up.",
        read=lambda of: _one(of.figures.generation),
    ),
    Metric(
        name="meshd_bootstrap_stage_seconds",
        kind="gauge",
        help="How long after the daemon's start this node saw a stage reached: listening, joined, "
        "claimed, started, k3s_ready, formed. Absent until then; near 0 after a restart.",
        labels=("stage",),
        read=lambda of: [((stage,), at) for stage, at in of.tally.stages.items()],
    ),
    Metric(
        name="meshd_peers",
        kind="gauge",
        help="Known nodes besides this one, by state (alive, suspect, failed, left) and path "
        "(direct, relay; none: not connected to this node).",
        labels=("state", "path"),
        read=lambda of: [((state, path), float(n)) for state, path, n in of.figures.peers],
    ),
    Metric(
        name="meshd_ledger_entries",
        kind="gauge",
        help="Registers in this node's replica, by the first word of their keys; no tombstones.",
        labels=("bucket",),
        read=lambda of: [((bucket,), float(count)) for bucket, count in of.figures.entries],
    ),
    Metric(
        name="meshd_ledger_rejected_total",
        kind="counter",
        help="Frames and entries that broke the protocol and were refused.",
        read=lambda of: _one(of.figures.rejected),
    ),
    Metric(
        name="meshd_ledger_equivocating_authors",
        kind="gauge",
        help="Authors proven to have signed two values as one: cloned machines, or restored disks.",
        read=lambda of: _one(of.figures.equivocating),
    ),
    Metric(
        name="meshd_gossip_messages_total",
        kind="counter",
        help="Frames of the ledger and of genesis that the node took in, or gave to the mesh to "
        "send; heartbeats and handshakes are not among them.",
        labels=("dir", "channel"),
        read=lambda of: _frames(of.tally.frames),
    ),
    Metric(
        name="meshd_gossip_bytes_total",
        kind="counter",
        help="Their size, before encryption.",
        labels=("dir", "channel"),
        read=lambda of: _frames(of.tally.bytes),
    ),
    Metric(
        name="meshd_k3s_info",
        kind="gauge",
        help="Always 1; the state of k3s on this node: absent, waiting, starting, ready, failed.",
        labels=("state",),
        read=lambda of: [((of.figures.k3s,), 1.0)],
    ),
    Metric(
        name="meshd_control_plane_ready",
        kind="gauge",
        help="Control-plane nodes that are ready, as those that are reachable say.",
        read=lambda of: _one(of.figures.control_plane_ready),
    ),
    Metric(
        name="meshd_nodes_ready",
        kind="gauge",
        help="Nodes that are Ready in Kubernetes, as a server says; absent while none says.",
        read=lambda of: _one(of.figures.nodes_ready),
    ),
    Metric(
        name="meshd_vip_holder",
        kind="gauge",
        help="1 on the node that serves the VIP, as k3s there says, else 0. Absent without a VIP.",
        read=lambda of: _one(of.figures.holds_vip),
    ),
    Metric(
        name="meshd_health_messages",
        kind="gauge",
        help="Items under `health` in status, by code and severity; docs/errors.md has the codes.",
        labels=("code", "severity"),
        read=lambda of: [((code, severity), float(n)) for code, severity, n in of.figures.health],
    ),
    Metric(
        name="meshd_events_total",
        kind="counter",
        help="Lines of `meshd events` since the daemon's start, by kind.",
        labels=("kind",),
        read=lambda of: [((kind,), float(n)) for kind, n in sorted(of.tally.notes.items())],
    ),
    Metric(
        name="meshd_event_loop_lag_seconds",
        kind="gauge",
        help="How late a timer of the event loop was, the worst of the last one to two minutes; "
        "it is looked at every two seconds.",
        read=lambda of: _one(of.tally.lag.worst_s),
    ),
)


class Exposition:
    """Renders snapshots; the process' own figures (`process_…`) are added to them."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._families = _Families()
        self._registry.register(self._families)
        ProcessCollector(registry=self._registry)

    def render(self, snapshot: Snapshot) -> bytes:
        """Return the text of `/metrics`, format 0.0.4."""
        self._families.snapshot = snapshot
        return generate_latest(self._registry)


class _Families(Collector):
    snapshot: Snapshot | None = None

    def collect(self) -> Iterator[Family]:
        if self.snapshot is None:
            return
        for metric in METRICS:
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.read(self.snapshot):
                family.add_metric(labels, value)
            yield family
