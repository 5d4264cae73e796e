"""Genesis: one node's part in the decision log that starts exactly one cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from random import Random
from typing import Literal

from ledger import Instant, NodeId, Signer
from roles._state import Effect, GenesisState
from roles._types import Bounds, Candidate


class Genesis:
    """Acceptor, proposer and learner of one node; all effects are to be performed in order."""

    def __init__(
        self,
        signer: Signer,
        *,
        network_id: str,
        bounds: Bounds,
        may_vote: bool,
        vip: str | None,
        rng: Random,
        now: Instant,
        network: Literal["lan", "overlay"] = "lan",
        journal: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        raise NotImplementedError

    @property
    def deadline(self) -> Instant:
        """When `tick` is due; infinite if nothing is waited for."""
        raise NotImplementedError

    @property
    def state(self) -> GenesisState:
        raise NotImplementedError

    def update(
        self, candidates: Sequence[Candidate], present: Collection[NodeId], now: Instant
    ) -> list[Effect]:
        """Take the candidates known (this node too) and the peers connected now."""
        raise NotImplementedError

    def receive(self, sender: NodeId, frame: bytes, now: Instant) -> list[Effect]:
        """Take one frame of the genesis channel."""
        raise NotImplementedError

    def learn(self, record: bytes, now: Instant) -> list[Effect]:
        """Take a record of the ledger's `genesis/<generation>/<slot>`."""
        raise NotImplementedError

    def observe(
        self, voters: Sequence[str], kube_system_uid: str | None, now: Instant
    ) -> list[Effect]:
        """Take what k3s on this node says: node names of etcd's voters, uid of kube-system."""
        raise NotImplementedError

    def tick(self, now: Instant) -> list[Effect]:
        """Do what is due."""
        raise NotImplementedError
