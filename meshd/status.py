"""What this node tells its users: the Status object and the rows of the ledger, from a `Node`.

Pure. The names are the public contract of `meshd status -o json`: fields are only ever added.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ledger import Moment, NodeId, encode_entry
from meshd.events import Health
from meshd.node import Known, Node, NodePhase, seat_in
from meshd.schema import Facts, K3sRecord, K3sState, LinkRecord, LinkState, PathKind
from roles import GenesisPhase, RoleWish, read_record
from roles.resets import read_reset

Role = Literal["control-plane", "worker", "none"]

API_VERSION = "meshd/v1"

_VALUE_SHOWN_BYTES = 64
_RECORDS = {"facts": Facts, "k3s": K3sRecord, "links": tuple[LinkRecord, ...]}


class NetworkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the token and the configuration say."""

    id: str
    bound: Literal["bounded", "open"]
    nodes_max: int | None  # None in an open network.
    quorum: int  # In an open network as far as this node knows; it grows.
    control_plane: int


class OwnStatus(msgspec.Struct, frozen=True, kw_only=True):
    """This node."""

    id: NodeId
    name: str
    role: Role | None
    initialiser: bool
    phase: NodePhase
    waiting_for: str | None
    uptime_s: float


class GenesisStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The decision log."""

    phase: GenesisPhase
    generation: int
    cluster_id: str | None
    initialiser: str | None
    votes: int
    epoch: int  # How often etcd's membership was reset, the newest known here; 0: never.


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The Kubernetes cluster, as its servers report it."""

    endpoint: str | None
    servers: tuple[str, ...]
    control_plane_ready: int
    nodes_ready: int | None
    k3s_version: str | None


class VipStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual address, and the node that has it."""

    address: str | None
    holder: str | None


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One node, this one included."""

    id: NodeId
    name: str
    role: Role | None
    state: LinkState
    path: PathKind | None
    relay: str | None
    rtt_ms: float | None
    node_ip: str | None
    k3s: K3sState
    waiting_for: str | None


class LedgerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """This node's replica."""

    entries: int
    root: str
    rejected: int
    synchronised_with: tuple[str, ...]  # Neighbours of which everything they held is here.


class HealthStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong."""

    code: str
    severity: Literal["warning", "error"]
    message: str
    fix: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it; encoded with `msgspec.json`."""

    api_version: str = API_VERSION
    kind: str = "Status"
    network: NetworkStatus
    node: OwnStatus
    genesis: GenesisStatus
    cluster: ClusterStatus
    vip: VipStatus
    nodes: tuple[PeerStatus, ...]
    ledger: LedgerStatus
    health: tuple[HealthStatus, ...]
    at_ms: int  # When this was so, by this node's wall clock.


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One register. Its signature is valid, or it would not be held."""

    author: str
    name: str
    key: str
    seq: int
    stamp_ms: int
    age_s: float | None  # None for a stamp in the future.
    size: int
    signature: Literal["valid"] = "valid"
    value: object


def build_status(node: Node, now: Moment, *, uptime_s: float) -> Status:
    """Return what `node` knows.

    Args:
        node: as it stands between two events.
        now: the time.
        uptime_s: since when the daemon runs, in seconds.
    """
    state, plan = node.genesis.state, node.standing.plan
    own = node.directory[node.me]
    waiting = node.waiting_for
    present = node.directory.present()
    return Status(
        network=NetworkStatus(
            id=node.network_id,
            bound=node.bounds.bound,
            nodes_max=node.bounds.nodes_max or None,
            quorum=state.quorum,
            control_plane=node.bounds.control_plane,
        ),
        node=OwnStatus(
            id=node.me,
            name=own.name if own.facts is not None else node.facts.name,
            role=role_of(node, node.me, node.facts.role_wish),
            initialiser=node.seat == "initialiser",
            phase=node.phase,
            waiting_for=waiting,
            uptime_s=round(uptime_s, 1),
        ),
        genesis=GenesisStatus(
            phase=state.phase,
            generation=state.generation,
            cluster_id=plan.cluster_id if plan is not None else None,
            initialiser=node.directory.name(plan.initialiser) if plan is not None else None,
            votes=state.votes,
            epoch=node.standing.succession.newest,
        ),
        cluster=_cluster(node, present),
        vip=VipStatus(address=node.vip, holder=_vip_holder(node, present)),
        nodes=tuple(
            _peer(node, known, node.directory.state_of(known, present), waiting)
            for known in sorted(node.directory, key=lambda one: (one.name, one.node))
        ),
        ledger=LedgerStatus(
            entries=len(node.replica.entries),
            root=node.replica.root.hex(),
            rejected=sum(node.rejected.values()),
            synchronised_with=tuple(map(node.directory.name, node.replica.caught_up)),
        ),
        health=tuple(map(_health, node.health)),
        at_ms=now.wall_ms,
    )


def ledger_rows(
    node: Node, now: Moment, *, author: str | None = None, prefix: str | None = None
) -> tuple[LedgerRow, ...]:
    """Return the registers held, sorted by key and author, without tombstones.

    Args:
        node: whose replica.
        now: ages are counted from its wall clock.
        author: only those of this node: its id, its name, or a prefix of either.
        prefix: only keys that begin so.
    """
    rows = []
    for entry in sorted(node.replica.entries.values(), key=lambda one: (one.key, one.author)):
        name = node.directory.name(entry.author)
        if entry.value is None or not entry.key.startswith(prefix or ""):
            continue
        if author and not (entry.author.startswith(author) or name.startswith(author)):
            continue
        age_ms = now.wall_ms - entry.stamp_ms
        rows.append(
            LedgerRow(
                author=entry.author,
                name=name,
                key=entry.key,
                seq=entry.seq,
                stamp_ms=entry.stamp_ms,
                age_s=round(age_ms / 1000, 1) if age_ms >= 0 else None,
                size=len(encode_entry(entry)),
                value=shown_value(node, entry.key, entry.value),
            )
        )
    return tuple(rows)


def shown_value(node: Node, key: str, value: bytes) -> object:
    """Return a value for people: the record if it is one of ours, else the start of its bytes."""
    parts = key.split("/")
    if parts[0] == "genesis":
        return _shown_decision(node, value)
    if parts[:2] == ["cluster", "seats"]:
        return msgspec.to_builtins(read_reset(value, network_id=node.network_id).record)
    record = _RECORDS.get(parts[2]) if parts[0] == "node" and len(parts) == 3 else None
    if record is not None:
        try:
            return msgspec.to_builtins(
                msgspec.msgpack.decode(value, type=record), builtin_types=(), str_keys=True
            )
        except msgspec.DecodeError:
            pass  # Of a later version: shown as the bytes it is.
    rest = "…" if len(value) > _VALUE_SHOWN_BYTES else ""
    return value[:_VALUE_SHOWN_BYTES].hex() + rest


def _shown_decision(node: Node, record: bytes) -> object:
    # It was verified when it entered the ledger.
    found = read_record(record, network_id=node.network_id, quorum=node.bounds.quorum)
    return {
        "decided": found.slot,
        "generation": found.generation,
        "ballot": {"round": found.ballot.round, "proposer": node.directory.name(found.ballot.node)},
        "signers": [node.directory.name(signer) for signer in found.signers],
        "value": msgspec.to_builtins(msgspec.structs.asdict(found.value)),
    }


def role_of(node: Node, whose: NodeId, wish: RoleWish) -> Role | None:
    """Return what `whose` is, as far as `node` knows, or None while that is undecided."""
    if wish == "none":
        return "none"
    plan, record = node.standing.plan, node.directory[whose].k3s
    if plan is None:
        return None
    seat = seat_in(plan, whose, wish)
    rivals = {rival.cluster_id for rival in node.genesis.state.rivals}
    if record is not None and record.cluster_id in rivals:
        seat = record.seat  # In its own cluster: two came of one token (MESH-4007).
    return "control-plane" if seat in ("initialiser", "server") else "worker"


def _peer(node: Node, known: Known, state: LinkState, own_waiting: str | None) -> PeerStatus:
    mine = known.node == node.me
    record, facts = known.k3s, known.facts
    waiting = record.waiting_for if record is not None else None
    return PeerStatus(
        id=known.node,
        name=known.name,
        role=role_of(node, known.node, facts.role_wish) if facts is not None else None,
        state=state,
        path=known.path if mine or known.connected else None,
        relay=None,  # Relays are not built yet.
        rtt_ms=round(known.rtt_ms, 2) if known.rtt_ms is not None else None,
        node_ip=facts.node_ip if facts is not None else None,
        k3s=record.state if record is not None else "absent",
        waiting_for=own_waiting if mine else waiting,
    )


def living_servers(node: Node, present: frozenset[NodeId]) -> list[Known]:
    """Return the seats whose API answers, as they say, and that are not seen as dead."""
    plan = node.standing.plan
    seats = [node.directory[seat.node] for seat in plan.seats] if plan is not None else []
    return [
        known
        for known in seats
        if known.endpoint is not None
        and node.directory.state_of(known, present) in ("alive", "suspect")
    ]


def _cluster(node: Node, present: frozenset[NodeId]) -> ClusterStatus:
    servers = living_servers(node, present)
    records = [known.k3s for known in servers if known.k3s is not None]
    endpoint = servers[0].endpoint if servers else None
    if node.vip is not None and _vip_holder(node, present) is not None:
        host = f"[{node.vip}]" if ":" in node.vip else node.vip
        endpoint = f"https://{host}:6443"
    counts = [record.nodes_ready for record in records if record.nodes_ready is not None]
    version = node.observed.version if node.observed is not None else ""
    versions = [version, *(record.version for record in records)]
    return ClusterStatus(
        endpoint=endpoint,
        servers=tuple(
            known.facts.node_ip
            for known in servers
            if known.facts is not None and known.facts.node_ip is not None
        ),
        control_plane_ready=sum(record.state == "ready" for record in records),
        nodes_ready=max(counts, default=None),
        k3s_version=next((one for one in versions if one), None),
    )


def _vip_holder(node: Node, present: frozenset[NodeId]) -> str | None:
    """Return the name of the VIP's holder: as seen here, else as a living server says."""
    if node.vip is None:
        return None
    witnessed = vip_witness(node, present)
    return name_of_node(node, witnessed[0]) if witnessed is not None else None


def vip_witness(node: Node, present: frozenset[NodeId]) -> tuple[str, NodeId] | None:
    """Return the Kubernetes node that has the VIP, and the member that says so: this node first."""
    if node.observed is not None and node.observed.vip_holder:
        return node.observed.vip_holder, node.me
    for known in living_servers(node, present):
        if known.k3s is not None and known.k3s.vip_holder:
            return known.k3s.vip_holder, known.node
    return None


def name_of_node(node: Node, node_name: str) -> str:
    """Return what people call the machine behind a Kubernetes node, or its name there."""
    names = {
        known.facts.node_name: known.name for known in node.directory if known.facts is not None
    }
    return names.get(node_name, node_name)


def _health(item: Health) -> HealthStatus:
    return HealthStatus(code=item.code, severity=item.severity, message=item.message, fix=item.fix)
