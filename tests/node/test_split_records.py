"""After a split each cluster's records are in the ledger, whatever else is under the same keys."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from ledger import Instant, Moment, sign_entry
from meshd.events import Effect, Persist, Wakeup
from meshd.node import Node
from roles import Bounds
from roles._nomination import OPEN_SETTLE_S
from tests.node.people import facts
from tests.roles.table import Table
from tests.roles.world import NETWORK, signer_of

OPEN = Bounds.unbounded(control_plane=1)
CLAIM = "genesis/1/claim"
WALL_MS = 1_760_000_000_000


def decided(*numbers: int) -> Table:
    """Return a table at which these machines decided a plan, seeing no others."""
    table = Table(OPEN)
    table.seat(*numbers)
    table.look_around()
    table.wait(OPEN_SETTLE_S + 0.1)
    table.settle()
    table.wait(10.0)
    return table


def published(effects: list[Effect]) -> list[bytes | None]:
    """Return what a node put into the ledger as the record of CLAIM."""
    return [
        entry.value
        for effect in effects
        if isinstance(effect, Persist)
        for entry in effect.entries
        if entry.author == signer_of(1).node_id and entry.key == CLAIM
    ]


@pytest.mark.parametrize(("in_ledger", "writes"), [((3, 4), True), ((1, 2), False)])
def test_a_record_is_published_beside_another_clusters_and_not_beside_itself(
    in_ledger: tuple[int, int], *, writes: bool
) -> None:
    ours, theirs = decided(1, 2), decided(*in_ledger)
    shown = sign_entry(
        signer_of(in_ledger[1]),
        network=NETWORK,
        key=CLAIM,
        seq=1,
        stamp_ms=WALL_MS,
        value=theirs.ledger[CLAIM] if writes else ours.ledger[CLAIM],
    )
    bounds = {"bound": "open", "nodes_max": 0, "quorum": 2, "control_plane": 1}
    node = Node(
        network_id=NETWORK,
        signer=signer_of(1),
        bounds=OPEN,
        facts=msgspec.structs.replace(facts(1), **bounds),
        vip=None,
        rng=Random(1),
        now=Moment(at=Instant(0.0), wall_ms=WALL_MS),
        entries=[shown],
        votes=list(ours.disks[1].items()),
    )
    effects: list[Effect] = []
    for second in range(10):
        moment = Moment(at=Instant(float(second)), wall_ms=WALL_MS + 1000 * second)
        effects += node.handle(Wakeup(), moment)
    assert published(effects) == ([ours.ledger[CLAIM]] if writes else [])
