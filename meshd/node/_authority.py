"""Who may write what into the ledger, answered from genesis.

Invariant: an answer never turns from yes to no; "not known yet" is answered by None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ledger import NodeId, Policy
from roles import Bounds, ClusterPlan, verify_record
from roles.resets import BadReset, Resets, judge, read_reset


def authority_of(
    *,
    network_id: str,
    bounds: Bounds,
    plans: Callable[[], Iterable[ClusterPlan]],
    resets: Callable[[], Resets],
) -> Policy:
    """Return the ledger's policy of a network.

    Args:
        network_id: of this network.
        bounds: a record of the decision log needs its quorum of signatures.
        plans: returns the plans of all generations that are known at the time of the question.
        resets: returns the lawful records of resets that are known then.
    """

    def genesis_valid(generation: int, slot: str, value: bytes) -> bool:
        key = f"genesis/{generation}/{slot}"
        reason = verify_record(value, key=key, network_id=network_id, quorum=bounds.quorum)
        return reason is None

    def held_seat(node: NodeId) -> bool | None:
        # Of any generation: what was written under a plan that is over stays lawful.
        held = any(plan.seat_of(node) is not None for plan in plans())
        return True if held else None

    def seats_valid(epoch: int, value: bytes) -> bool | None:
        try:
            record = read_reset(value, network_id=network_id).record
        except BadReset:
            return False
        lawful, _ = judge(record, plans(), resets())
        return lawful and record.epoch == epoch

    return Policy(genesis_valid=genesis_valid, seats_valid=seats_valid, held_seat=held_seat)
