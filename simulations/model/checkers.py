"""What must never happen, judged from outside: from disks, orders and clusters, not from the node.

Every check runs at the step that could break it, on what `simulations.model.wire` finds in rows and
records. The names S1 to S5 are those of the table in docs/genesis.md, "The simulator".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ledger import NodeId
from meshd.events import ClusterOrder, Persist, Seal
from roles import Bounds, ClusterPlan
from simulations.model.disk import Disk
from simulations.model.etcd import Etcd
from simulations.model.k3s import K3s
from simulations.model.wire import (
    PlanSeen,
    ballot_in,
    hash_of,
    intended_in,
    kind_held,
    kind_of,
    members_in,
    plan_in,
    reason_in,
    value_in,
    voted_for,
    voters_of,
    words_in,
)

RESUMED_S = 2.0
"""How long a machine that was frozen as a whole may run an old k3s after it goes on."""

_NEVER_SET_MS = 1_735_689_600_000  # 2025.
_HOUR_MS = 3_600_000

_ROWS = {
    "promise": "promise",
    "accepted": "accept",
    "down": "down",
    "released": "gave-up",
    "lease": "gave-up",
}
"""What the journal calls the row that a message rests on; a lease only when nothing is left."""


class Violation(AssertionError):
    """A promise was broken; the message says which and by whom."""


class Checkers:
    """Watches one run.

    Args:
        bounds: of the network.
        names: what to call each node in a message.
    """

    def __init__(self, bounds: Bounds, names: Mapping[NodeId, str]) -> None:
        self._bounds = bounds
        self._names = names
        self._decided: dict[str, bytes] = {}  # <generation>/<slot> -> value, as first seen.
        self._proven: set[tuple[str, bytes]] = set()  # Records whose votes were counted.
        self._sent: dict[NodeId, str] = {}  # Of which cluster the last order was.
        self._plans: dict[int, PlanSeen] = {}
        self._over: set[int] = set()  # Generations that were decided to be abandoned.
        self._formed: set[int] = set()  # Those of which DONE was decided.
        self._etcds: dict[int, list[Etcd]] = {}
        self._gave_up: set[tuple[NodeId, int]] = set()
        self._served: dict[str, str] = {}  # Hash of a secret in use -> cluster id.
        self.reached: Counter[str] = Counter()

    @property
    def starts(self) -> int:
        """How many clusters were ever initialised."""
        return sum(map(len, self._etcds.values()))

    def persisted(self, node: NodeId, change: Persist, *, mark: str) -> None:
        """Check that every record of the decision log is the same on all disks.

        `mark` is the cluster id beside k3s' data there. A node keeps a decision in its journal, row
        `decided/<generation>/<slot>`, and later in the ledger, register
        `genesis/<generation>/<slot>`.
        """
        for row, record in change.votes:
            if row.startswith("accept/") and kind_of(voted_for(record)) == "abandon":
                self.reached["voted to abandon"] = 1
            if row.startswith("decided/"):
                self._decision(row.removeprefix("decided/"), record)
            if row.startswith("gave-up/"):
                self._gives_up(node, int(row.removeprefix("gave-up/")), reason_in(record), mark)
        for entry in change.entries:
            if entry.key.startswith("genesis/") and entry.value is not None:
                self._decision(entry.key.removeprefix("genesis/"), entry.value)

    def _gives_up(self, node: NodeId, generation: int, reason: str, mark: str) -> None:
        self._gave_up.add((node, generation))
        self.reached[f"gave up: {reason}"] = 1
        plan = self._plans[generation]
        if reason.startswith("k3s ended") and mark != plan.cluster_id:
            name = self._names[node]
            raise Violation(f"{name} gives generation {generation} up for what k3s of another did")

    def _decision(self, place: str, record: bytes) -> None:
        if (place, record) in self._proven:
            return
        self._proven.add((place, record))
        self._has_quorum(place, record)
        value = value_in(record)
        known = place in self._decided
        first = self._decided.setdefault(place, value)
        if first != value:
            raise Violation(f"two decisions in slot {place}: {first!r} and {value!r}")
        if not known:
            generation, slot = place.split("/")
            self._is_news(int(generation), slot, value)

    def _has_quorum(self, place: str, record: bytes) -> None:
        """Check that a record proves itself: enough different nodes voted for its value."""
        voters = voters_of(place, record) & self._names.keys()
        if len(voters) < self._bounds.quorum:
            raise Violation(
                f"the record of slot {place} has {len(voters)} votes, "
                f"{self._bounds.quorum} make a quorum"
            )

    def _is_news(self, generation: int, slot: str, value: bytes) -> None:
        kind = kind_of(value)
        self.reached[f"generation {generation}"] = 1
        self._follows(generation)
        if kind in ("abandon", "void"):
            self._over.add(generation)
            self.reached[f"abandoned in slot {slot}: {words_in(value)}"] = 1
        if slot == "claim":
            self._plans[generation] = plan = plan_in(value)
            self.reached["a plan without a lease"] += not plan.leased
        if kind == "done":
            self._only_one_forms(generation)
            self._done(generation, value)

    def _only_one_forms(self, generation: int) -> None:
        """Check that one cluster at most leaves the provisional state (S3a)."""
        self._formed.add(generation)
        if len(self._formed) > 1:
            raise Violation(f"S3a: DONE in generations {sorted(self._formed)}")

    def _follows(self, generation: int) -> None:
        """Check that the generation before this one was abandoned (S3b)."""
        if generation > 1 and generation - 1 not in self._over:
            raise Violation(
                f"S3b: a decision of generation {generation}, and no ABANDON of the one before it"
            )

    def revealed(self, node: NodeId, frame: bytes, disk: Disk) -> None:
        """Check that a promise, a vote or a last word is on the disk of whoever lets it out."""
        tag, body, *_ = msgspec.msgpack.decode(frame)
        if tag != "message":
            return
        kind, _network, _limits, generation, slot, ballot, *rest = msgspec.msgpack.decode(body)
        if kind in ("ask", "down", "released"):
            self.reached[f"said {kind}"] = 1
        if kind in ("promise", "accepted"):
            kept = disk.holds_vote(f"{_ROWS[kind]}/{generation}/{slot}")
            if kept is None or ballot_in(kept) < ballot:
                raise Violation(f"{self._names[node]} lets out a {kind} that is not on its disk")
        last = kind in ("down", "released") or (kind == "lease" and rest[-1] == 0)
        if last and disk.holds_vote(f"{_ROWS[kind]}/{generation}") is None:
            raise Violation(f"{self._names[node]} says {kind} for good, and its disk does not")

    def ordered(self, node: NodeId, order: ClusterOrder, disk: Disk) -> None:
        """Check an order against what is decided and durable on that node's own disk."""
        sent_to = self._sent.get(node)
        if order.seat != "none" and order.plan is not None:
            self._sent[node] = order.plan.cluster_id
        elif sent_to is not None and sent_to not in order.abandoned:
            raise Violation(f"{self._names[node]} is ordered to leave its cluster")
        if order.plan is None or order.seat == "none":
            return
        for wrong in self._wrong_with(node, order, order.plan, disk):
            raise Violation(f"{self._names[node]} {wrong}")

    def _wrong_with(
        self, node: NodeId, order: ClusterOrder, plan: ClusterPlan, disk: Disk
    ) -> Iterator[str]:
        generation = plan.generation
        if order.formed and not _holds(disk, generation, "done"):
            yield "has an order for a formed cluster before DONE"
        if plan.leased and not order.formed and order.lease_until is None:
            yield "is ordered to run k3s without a lease before DONE"
        if (node, generation) in self._gave_up and not (order.formed or order.stop):
            yield f"gave generation {generation} up, and is ordered to go on"
        if plan.cluster_id in order.abandoned:
            yield "is ordered to run what is abandoned"
        if order.seat == "worker" and not order.formed:
            yield "is ordered to be a worker before DONE"
        if order.seat == "initialiser" and not _holds(disk, generation, "started"):
            yield "is ordered to start a cluster before STARTED"
        own_ips = [seat.node_ip for seat in plan.seats if seat.node == node]
        if plan.vip in order.join or set(own_ips) & set(order.join):
            yield f"is to join itself or the VIP: {order.join}"
        if order.seat in ("server", "worker") and not (order.join or order.stop):
            yield "is to join, and not told whom"

    def launched(self, node: NodeId, wall_ms: int, others: Sequence[int]) -> None:
        """Check that k3s is not started with a clock that two of its node's neighbours refute.

        Args:
            wall_ms: of this machine.
            others: of the voters that it is connected to, if they were not set just now.
        """
        name = self._names[node]
        if wall_ms < _NEVER_SET_MS:
            raise Violation(f"k3s starts on {name}, whose clock was never set")
        set_once = [ms for ms in others if ms >= _NEVER_SET_MS]
        agree = len(set_once) >= 2 and max(set_once) - min(set_once) <= _HOUR_MS
        if agree and min(abs(wall_ms - ms) for ms in set_once) > _HOUR_MS:
            raise Violation(f"k3s starts on {name}, whose clock {len(set_once)} voters refute")

    def sealed(self, node: NodeId, seal: Seal, disk: Disk) -> None:
        """Check who is given a secret, by the newest CLAIM on the disk of whoever gives it."""
        known = (g for g in sorted(self._plans, reverse=True) if _holds(disk, g, "claim"))
        plan = self._plans.get(next(known, 0))
        who = f"{self._names[node]} seals {seal.name} to {self._names[seal.recipient]}"
        if plan is None:
            raise Violation(f"{who} before CLAIM")
        self._uses_secrets(plan)
        if seal.recipient in plan.seats:
            return
        if not _holds(disk, plan.generation, "done"):
            raise Violation(f"{who}, no member of the plan, before DONE")
        if seal.name != "agent-token":
            raise Violation(f"{who}, a worker")

    def started(self, node: NodeId, etcd: Etcd) -> None:
        """Check that this cluster-init is the only one of its generation, and was decided."""
        generation = etcd.plan.generation
        earlier = self._etcds.setdefault(generation, [])
        earlier.append(etcd)
        if len(earlier) > 1:
            uids = ", ".join(one.uid for one in earlier)
            raise Violation(
                f"{len(earlier)} clusters started in generation {generation} (kube-system {uids}),"
                f" the last by {self._names[node]}"
            )

    def started_as_decided(self, node: NodeId, etcd: Etcd, disk: Disk) -> None:
        """Check that STARTED was decided for this node, and is on its disk, as is its intent."""
        generation, name = etcd.plan.generation, self._names[node]
        plan = self._plans.get(generation)
        if plan is None or not _holds(disk, generation, "started"):
            raise Violation(f"{name} started a cluster before STARTED was decided")
        if (plan.initialiser, plan.cluster_id) != (node, etcd.plan.cluster_id):
            raise Violation(f"{name} started a cluster that CLAIM does not give it")
        intent = disk.holds_vote(f"intent/{generation}")
        if intent is None or intended_in(intent) != hash_of(self._decided[f"{generation}/claim"]):
            raise Violation(f"{name} started a cluster without its intent on its disk")
        self._uses_secrets(plan)

    def _uses_secrets(self, plan: PlanSeen) -> None:
        """Check that no secret that was handed out, or ran a cluster, is another cluster's (S5)."""
        for secret in (plan.ca_hash, plan.token_commitment):
            first = self._served.setdefault(secret, plan.cluster_id)
            if first != plan.cluster_id:
                raise Violation(
                    f"S5: the secrets of cluster {first[:8]} are those of {plan.cluster_id[:8]}, "
                    f"generation {plan.generation}, too"
                )

    def running(self, services: Sequence[K3s], now: float) -> None:
        """Check that no k3s of an abandoned generation runs beside a later one (S4)."""
        live = [(s, s.data.plan) for s in services if s.running and not s.frozen and s.data]
        newest = max((plan.generation for _, plan in live), default=0)
        for service, plan in live:
            if plan.generation == newest:
                continue
            if now - service.resumed_at <= RESUMED_S:
                self.reached["old k3s for a moment after a machine resumed"] = 1
                continue
            raise Violation(
                f"S4: k3s of generation {plan.generation} runs on {service.host.node_name} beside "
                f"one of generation {newest}"
            )

    def decided(self, kind: str) -> bool:
        """Whether any disk holds a decision of this kind (`claim`, `started`, `done`)."""
        return any(kind_of(value) == kind for value in self._decided.values())

    @property
    def newest_seats(self) -> tuple[str, ...]:
        """The nodes with a seat in the newest plan that anyone knows, the initialiser first."""
        return self._plans[max(self._plans)].seats if self._plans else ()

    @property
    def generations(self) -> int:
        """The highest generation in which anything was decided."""
        return max((int(place.split("/")[0]) for place in self._decided), default=0)

    def joined(self, node: NodeId, name: str) -> None:
        """Take note of a new identity: a machine with an empty disk."""
        self._names = {**self._names, node: name}

    def _done(self, generation: int, value: bytes) -> None:
        """Check DONE against etcd itself: enough plan members vote in the one cluster."""
        etcds = self._etcds.get(generation, [])
        if not etcds:
            raise Violation(f"DONE of generation {generation} without a cluster")
        needed = min(self._bounds.control_plane, self._bounds.control_plane // 2 + 2)
        if len(etcds[0].voters) < needed:
            raise Violation(f"DONE with {len(etcds[0].voters)} etcd voters, {needed} are needed")
        if etcds[0].uid.encode() not in value:
            raise Violation("DONE does not name the cluster that exists")
        members = set(members_in(value)) & set(self._plans[generation].names)
        if len(members) < needed:
            raise Violation(f"{len(members)} of the voters in DONE are members of the plan")


def _holds(disk: Disk, generation: int, kind: str) -> bool:
    """Whether that disk holds a decision of this kind in that generation."""
    return kind_held(disk.holds_vote(f"decided/{generation}/{kind}")) == kind
