"""The strategy to compare with: whoever leads among the visible nodes starts the cluster, no votes.

As Kairos' p2p provider does it (kairos-io/provider-kairos, internal/role/auto.go and schedule.go;
mudler/edgevpn, api/client/service/node.go and pkg/utils/leader.go): every 10 s a node advertises
itself in an in-memory ledger in which the last writer wins; with `minimum_nodes` (2) advertised,
the one with the greatest FNV-1a hash leads unless a leader is known, and gives the role that runs
`--cluster-init` to a random node if it sees none that has it. What it read is all it knows.
"""

from __future__ import annotations

import json
from random import Random
from typing import assert_never

from ledger import Instant, Moment, NodeId
from meshd.events import (
    Apply,
    Channel,
    ClockObserved,
    ClusterOrder,
    Connected,
    Disconnected,
    Effect,
    Event,
    FactsObserved,
    HealthObserved,
    K3sObserved,
    LinkObserved,
    MembershipReset,
    Persist,
    Received,
    SecretSealed,
    Send,
    Wakeup,
)
from meshd.schema import Facts
from roles import ClusterPlan, Seat
from simulations.model.machine import Boot, Strategy

TICK_S = 10.0
MINIMUM_NODES = 2
ADVERT_LASTS_MS = 15 * 60 * 1000
SENTINEL = "deployed"

_INIT, _HA, _WORKER = "master/clusterinit", "master/ha", "worker"


class Kairos:
    """One node that follows that strategy."""

    def __init__(self, boot: Boot) -> None:
        self._me = boot.signer.node_id
        self._facts: Facts = boot.facts
        self._masters = boot.bounds.control_plane
        self._rng: Random = boot.rng
        self._peers: set[NodeId] = set()
        self._bucket: dict[str, tuple[int, str]] = {}  # Key -> (wall clock, value).
        self._deployed = dict(boot.votes).get(SENTINEL)  # The only thing it keeps on disk.
        self.deadline = Instant(boot.now.at + self._rng.uniform(0.0, TICK_S))

    def handle(self, event: Event, now: Moment) -> list[Effect]:
        """Take an event; roles are looked at on every tick."""
        effects: list[Effect] = []
        match event:
            case Connected(peer, _):
                self._peers.add(peer)
            case Disconnected(peer, _):
                self._peers.discard(peer)
            case Received(_, _, frame):
                self._merge(json.loads(frame))
            case (
                LinkObserved() | ClockObserved() | FactsObserved() | K3sObserved() | SecretSealed()
            ):
                pass
            case ClockObserved() | HealthObserved() | MembershipReset() | Wakeup():
                pass
            case _:
                assert_never(event)
        if now.at >= self.deadline:
            self.deadline = Instant(now.at + TICK_S)
            effects += self._tick(now)
        return effects

    def _tick(self, now: Moment) -> list[Effect]:
        self._set(f"advert/{self._me}", self._facts.node_ip or "", now)
        advertised = [
            NodeId(key.removeprefix("advert/"))
            for key, (stamp, _) in sorted(self._bucket.items())
            if key.startswith("advert/") and now.wall_ms - stamp < ADVERT_LASTS_MS
        ]
        if len(advertised) >= MINIMUM_NODES:
            self._lead(advertised, now)
        effects = self._execute(now)
        frame = json.dumps(self._bucket, sort_keys=True).encode()
        return effects + [Send(peer, Channel.LEDGER, frame) for peer in sorted(self._peers)]

    def _lead(self, advertised: list[NodeId], now: Moment) -> None:
        chosen = max(advertised, key=_fnv1a)
        leader = self._get("leader")
        if leader is None or leader not in advertised:
            if chosen == self._me:
                self._set("leader", self._me, now)
            return
        if leader != self._me:
            return
        roles = {node: self._get(f"role/{node}") for node in advertised}
        unassigned = [node for node, role in roles.items() if role is None]
        if not unassigned:
            return
        if _INIT not in roles.values():
            self._set(f"role/{self._rng.choice(unassigned)}", _INIT, now)
        elif list(roles.values()).count(_HA) < self._masters - 1:
            self._set(f"role/{unassigned[0]}", _HA, now)
        else:
            self._set(f"role/{unassigned[0]}", _WORKER, now)

    def _execute(self, now: Moment) -> list[Effect]:
        """Do what the role says, once; `cluster-init` needs nobody's consent."""
        role = self._get(f"role/{self._me}")
        if role == _INIT:
            self._set("master", self._facts.node_ip or "", now)
        master = self._get("master")
        if role is None or self._deployed is not None or (role != _INIT and master is None):
            return []
        self._deployed = role.encode()
        order = ClusterOrder(
            seat="initialiser" if role == _INIT else "server" if role == _HA else "worker",
            plan=self._plan(),
            formed=False,
            join=(master,) if role != _INIT and master is not None else (),
        )
        return [Apply(order), Persist(votes=((SENTINEL, self._deployed),))]

    def _plan(self) -> ClusterPlan:
        seat = Seat(
            node=self._me,
            node_name=self._facts.node_name,
            node_ip=self._facts.node_ip or "",
        )
        return ClusterPlan(
            cluster_id="0" * 32,
            generation=1,
            initialiser=self._me,
            seats=(seat,),
            network="lan",
            settings_hash="",
            ca_hash="",
            token_commitment="",
            vip=None,
        )

    def _get(self, key: str) -> str | None:
        found = self._bucket.get(key)
        return found[1] if found is not None else None

    def _set(self, key: str, value: str, now: Moment) -> None:
        self._bucket[key] = (now.wall_ms, value)

    def _merge(self, theirs: dict[str, list[object]]) -> None:
        for key, (stamp, value) in theirs.items():
            assert isinstance(stamp, int)
            assert isinstance(value, str)
            held = self._bucket.get(key)
            if held is None or stamp > held[0]:
                self._bucket[key] = (stamp, value)


def _fnv1a(node: NodeId) -> int:
    """Return the 32-bit FNV-1a hash (Fowler, Noll, Vo; draft-eastlake-fnv)."""
    found = 0x811C9DC5
    for byte in node.encode():
        found = (found ^ byte) * 0x01000193 & 0xFFFFFFFF
    return found


KAIROS = Strategy(name="kairos", start=Kairos, decides=False, run_on_s=120.0)
