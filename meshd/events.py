"""What goes into `meshd.node.Node` and what comes out: the whole boundary between core and shell.

Effects are performed in order. `Persist` returns only when its content would survive a power cut;
if it fails, no later effect is performed and the node is rebuilt from what the disk holds, so a
vote that was not durable is never revealed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ledger import Entry, Instant, NodeId
from meshd.schema import Facts, K3sState, LinkState, PathKind
from roles import ClusterPlan, Seat


class Channel(StrEnum):
    """Frames of different channels never queue behind one another."""

    LEDGER = "ledger"
    GENESIS = "genesis"


# Events.


@dataclass(frozen=True, slots=True)
class Connected:
    """A peer passed the token handshake; frames can be sent to it."""

    peer: NodeId
    path: PathKind


@dataclass(frozen=True, slots=True)
class Disconnected:
    """No connection to the peer is left."""

    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """One frame, at most 256 KiB, from a peer that passed the handshake; not yet decoded."""

    peer: NodeId
    channel: Channel
    frame: bytes


@dataclass(frozen=True, slots=True)
class LinkObserved:
    """Heartbeats of a neighbour changed its state, or its round trip moved to another class."""

    peer: NodeId
    state: LinkState
    rtt_ms: float | None


@dataclass(frozen=True, slots=True)
class ClockObserved:
    """What a neighbour's wall clock showed, in ms since 1970, when CLOCK_BOOTTIME here was 0.

    Told when the neighbour connects and when its clock was set: by this it is known at any later
    moment, however this node's own wall clock is set meanwhile.
    """

    peer: NodeId
    epoch_ms: int


@dataclass(frozen=True, slots=True)
class FactsObserved:
    """This node's own facts, at start and whenever they change (an address came or went)."""

    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminAccess:
    """What a server can hand out to administrators, and to whom.

    Args:
        digest: of the administrator's kubeconfig that lies on this server's disk; 16 bytes.
        admins: (`age1…`, the 32 bytes of that X25519 key) of `p2p.meshd.admins`, in its order.
    """

    digest: bytes
    admins: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class K3sObserved:
    """What was read from k3s itself on this node (never inferred from what it was told to do).

    Args:
        cluster_id: whose data k3s runs with here, as the mark on the disk says; all that is said
            of etcd and of the API is about that cluster. "" if nothing is marked or known.
        voters: node names of etcd's voting members, sorted; empty if they could not be read.
        members: those and the learners, dead ones too (a member is known by its name, or by its
            peer address and the plan's seats); empty if they could not be read.
        exits: how often k3s of the ordered cluster ended by itself in this boot; ends that the
            fuse or an order caused do not count.
        lease_until: the deadline that the fuse holds for the ordered cluster; None without a fuse.
        admin: what is to be sealed for administrators; None on a worker, and while there is none.
        lost_database: this server's database is gone, and etcd lists its old member still.
        epoch: the highest epoch whose database was served here, with no Node of `remove` left.
        resetting: the epoch that a reset of etcd's membership, under way here, is to begin.
        superseded: k3s serves a database of before a reset that this node knows of.
        stopped: cluster ids with an order to `stop`, or to be set aside, that is carried out: no
            process of that cluster's k3s is left on this node, nor anything in its containers, and
            neither supervisor nor gate starts one, unless that cluster is formed after all. Never
            said before that is so: others found the next cluster on the strength of it.
    """

    state: K3sState
    waiting_for: str | None = None
    version: str = ""
    endpoint: str | None = None
    voters: tuple[str, ...] = ()
    kube_system_uid: str | None = None
    nodes_ready: int | None = None
    admin: AdminAccess | None = None
    vip_holder: str | None = None
    vip_answers: bool = False
    cluster_id: str = ""
    members: tuple[str, ...] = ()
    exits: int = 0
    lease_until: Instant | None = None
    stopped: tuple[str, ...] = ()
    lost_database: bool = False
    epoch: int = 0
    resetting: int = 0
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class SecretSealed:
    """The answer to `Seal`: ciphertext only its recipient can open."""

    recipient: NodeId
    name: str
    value: bytes
    cluster_id: str = ""  # As in the `Seal` that it answers.


@dataclass(frozen=True, slots=True)
class HealthObserved:
    """The shell's findings, complete: replaces those it reported before."""

    items: tuple[Health, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipReset:
    """On this node etcd's membership was reset, durably: the new epoch is to be published.

    Told again until the order is of that epoch. What it says is in `roles.SeatsRecord`.
    """

    epoch: int
    cluster_id: str
    before: bytes
    seats: tuple[Seat, ...]
    dead: tuple[NodeId, ...]
    by: str
    at_ms: int
    ended: tuple[bytes, ...] = ()
    snapshot: str = ""


@dataclass(frozen=True, slots=True)
class Wakeup:
    """The deadline passed with nothing else to do."""


Event = (
    Connected
    | Disconnected
    | Received
    | LinkObserved
    | ClockObserved
    | FactsObserved
    | K3sObserved
    | SecretSealed
    | HealthObserved
    | MembershipReset
    | Wakeup
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One thing that is wrong, with its stable code and what would mend it."""

    code: str
    severity: Literal["warning", "error"]
    message: str
    fix: str


# Effects.


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Make all of this durable, in one transaction, before any later effect.

    `votes` are journal rows of the genesis machine, appended: (row key, signed bytes); a row with
    the same key replaces the older one. `entries` replace what the register held.
    """

    entries: tuple[Entry, ...] = ()
    votes: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame, best effort. To a peer without a connection: the mesh tries to dial it."""

    peer: NodeId
    channel: Channel
    frame: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """A peer broke the protocol. Count it, log it, slow it down, then drop it; never crash."""

    peer: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class Learn:
    """Addresses (multiaddrs without /p2p) of a peer, for the dialer and to remember."""

    peer: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Seal the named secret to `recipient`'s X25519 key.

    `server-token` and `agent-token` go to nodes; `kubeconfig` goes to administrators, who are named
    by their `age1…` in place of a node id. Answered by `SecretSealed`. The core itself never holds
    a secret.
    """

    recipient: NodeId
    sealing_key: bytes
    name: str
    cluster_id: str = ""  # Whose secret.


LEASE_START_MIN_S = 30.0
"""k3s is started only while at least this much of the forming lease is left (docs/genesis.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """What is to become of a database of before a reset, should there be one on this node.

    It is never started again. One that is being served is left alone, and reported as `superseded`.

    Args:
        cluster_id: whose.
        epoch: a database that is marked with a lower one is of before.
        wholly: this node has no seat any more: k3s' whole folders go, not the database alone.
        now: a server of this epoch answers, so the old database may be set aside. Until then it
            stays where it is: it might be the last one.
    """

    cluster_id: str
    epoch: int
    wholly: bool
    now: bool
    address: str | None = None  # Of this node's seat as it is now, if it has one.


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOrder:
    """What k3s on this node shall be, as a whole; a later order replaces an earlier one.

    Until `formed` the cluster is provisional: no VIP, no kubeconfig, no workers, no user manifests.
    The initialiser's data directory is marked with the plan's cluster id before its first start.

    Args:
        lease_until: CLOCK_BOOTTIME until which k3s of this plan may run, of this boot only. The
            shell hands it to the fuse before it starts k3s, and whenever it grows; the fuse kills
            k3s (SIGKILL, with all that descends from it and its group, within 10 s) when it passes,
            whether meshd lives or not. It never shrinks: an order with an earlier one, such as the
            first of a daemon that was restarted (0.0), leaves the fuse as it is, and k3s running.
            k3s is *started* only while at least `LEASE_START_MIN_S` are left of it. None: no limit,
            the fuse is taken away; so it is once `formed`, and for a plan that is not `leased`.
        stop: k3s of this plan is to be down (SIGKILL, at once) and to stay down, over restarts of
            the daemon and of the machine too, unless the cluster is formed after all. Carried out,
            it is reported in `K3sObserved.stopped`. Its data stay where they are.
        abandoned: cluster ids that a certified decision has ended. A k3s that runs with the data of
            one of them is killed; then the folder that carries its mark is set aside by one rename,
            never deleted (containers killed, mounts undone). Each id is reported in `stopped` when
            nothing of it runs. This comes before anything else the order asks for.
        remove: Kubernetes node names whose Node, and with it whose member of etcd, this server is
            to remove: their databases are lost, or their seats were given up by a reset. Not done
            while such a Node is Ready.
        epoch: how often the cluster's membership was reset, as this node follows it.
        retire: set once it was.
        survivor: the last reset was this node's.
        readdressed: the last epoch whose reset gave a seat another address; 0: none did. Who first
            started k3s before takes its present address as its own, once.
        rival: who else resets the membership at this moment and goes before this node: a reset here
            that has touched nothing yet gives way.
        heard: the other servers that are heard, while this node resets the membership.
        serving: names of those whose API answers, likewise.
    """

    seat: Literal["initialiser", "server", "worker", "none"]
    plan: ClusterPlan | None
    formed: bool
    join: tuple[str, ...] = ()  # Addresses of live servers, best first; never the VIP, never ours.
    sealed: tuple[tuple[str, bytes], ...] = ()  # (secret name, value sealed to this node).
    lease_until: Instant | None = None
    stop: bool = False
    abandoned: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    hold: str | None = None  # Why k3s is not to be started now; one that runs is left alone.
    servers_version: str = ""  # Of k3s on the first server in `join`, as that says it.
    epoch: int = 0
    retire: Retire | None = None
    survivor: bool = False
    readdressed: int = 0
    rival: str | None = None
    heard: tuple[NodeId, ...] = ()
    serving: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Apply:
    """Bring k3s on this node to this order."""

    order: ClusterOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something an operator will want to read in the history: what happened and why."""

    kind: str  # snake_case, such as `role_decided`.
    text: str


Effect = Persist | Send | Reject | Learn | Seal | Apply | Note
