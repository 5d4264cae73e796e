"""What a slot decides, and the records that prove it to anyone who knows the network's quorum.

A record holds the value and at least a quorum of signed votes for one ballot; who carries it does
not matter. In an open network the votes sign their ballot's quorum, and so many must
be there. Value types may be added; an unknown one is refused, never guessed at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import msgspec

from ledger import NodeId
from roles._messages import (
    Accepted,
    Authentic,
    BadMessage,
    Ballot,
    Record,
    hash_of,
    open_envelope,
    read_frame,
)
from roles._state import SLOTS, Slot
from roles._types import ClusterPlan, Limits, quorum_of

VALUE_MAX_BYTES = 8 * 1024


class Claim(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="claim"):
    """The first assignment of a generation."""

    plan: ClusterPlan


class Started(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="started"
):
    """The initialiser may run `cluster-init`."""

    initialiser: NodeId


class Done(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="done"):
    """The cluster stands: enough members vote in etcd. Closes the log."""

    initialiser: NodeId
    kube_system_uid: str
    voters: tuple[str, ...]  # Kubernetes node names, sorted.


class Abandon(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="abandon"
):
    """In STARTED's or DONE's stead: this generation is over, and the next may begin."""

    initialiser: NodeId
    reason: Annotated[str, msgspec.Meta(max_length=512)]
    failed: Annotated[tuple[NodeId, ...], msgspec.Meta(max_length=64)] = ()
    """Members of the plan that were not there, or kept it from being complete: they rank last from
    now on, and the initialiser before them if it is not one of them."""


class Void(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="void"):
    """In DONE's stead, in an open network: several plans were decided, and none of them formed.

    It ends the generation for those who follow any of them, whether STARTED was decided or not.
    """

    clusters: Annotated[tuple[str, ...], msgspec.Meta(min_length=2, max_length=16)]  # Sorted.

    @property
    def reason(self) -> str:
        """Why, in words."""
        return f"{len(self.clusters)} clusters were planned, and no one of them could form"


Value = Claim | Started | Done | Abandon | Void

_values: msgspec.msgpack.Decoder[Value] = msgspec.msgpack.Decoder(Value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verified record."""

    generation: int
    slot: Slot
    ballot: Ballot
    value: Value
    raw_value: bytes
    quorum: int  # How many votes its own ballot needed.
    limits: Limits  # The bounds of its voters.
    signers: tuple[NodeId, ...]  # Sorted.
    votes: tuple[Authentic, ...]
    record: bytes

    @property
    def abandons(self) -> bool:
        """Whether this ends its generation without a cluster."""
        return isinstance(self.value, Abandon | Void)

    @property
    def place(self) -> Place:
        """Where in the log it stands."""
        return self.generation, self.slot

    @property
    def key(self) -> str:
        """The ledger key that the record belongs under."""
        return record_key(self.generation, self.slot)


Place = tuple[int, Slot]
"""(generation, slot)."""


def record_key(generation: int, slot: Slot) -> str:
    """Return `genesis/<generation>/<slot>`."""
    return f"genesis/{generation}/{slot}"


def encode_value(value: Value) -> bytes:
    """Return the bytes whose hash voters sign."""
    return msgspec.msgpack.encode(value)


def decode_value(raw: bytes, slot: Slot, generation: int) -> Value:
    """Decode a value and check what can be checked without knowing other slots.

    Raises:
        BadMessage: malformed, of a type the slot cannot hold, or of another generation.
    """
    if len(raw) > VALUE_MAX_BYTES:
        raise BadMessage(f"a value of {len(raw)} bytes, at most {VALUE_MAX_BYTES}")
    return _remembered(raw, slot, generation)


def _decode(raw: bytes, slot: Slot, generation: int) -> Value:
    try:
        value = _values.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadMessage("not a genesis value") from error
    match slot, value:
        case "claim", Claim(plan):
            flaw = _flaw(plan, generation)
            if flaw is not None:
                raise BadMessage(flaw)
        case ("started", Started() | Abandon()) | ("done", Done() | Abandon() | Void()):
            pass
        case _:
            raise BadMessage(f"slot {slot} cannot hold {type(value).__name__}")
    return value


_remembered = lru_cache(maxsize=64)(_decode)  # The same few are looked at again and again.


def done_voters_min(control_plane: int) -> int:
    """Return how many members must vote in etcd for DONE: 1 of 1, 3 of 3, 4 of 5.

    One more than a majority where there are that many, so that no single loss kills a cluster
    that was just declared formed.
    """
    return min(control_plane, control_plane // 2 + 2)


def contradiction(value: Value, plan: ClusterPlan | None, slot: Slot) -> str | None:
    """Return why the value cannot stand in `slot` after the claim of this plan, or None."""
    match value:
        case Claim():
            return None
        case Void(clusters):
            named = plan is not None and plan.cluster_id in clusters
            return None if named else "VOID does not name the cluster of CLAIM"
        case Started() | Done() | Abandon():
            if plan is None or value.initialiser != plan.initialiser:
                return f"{type(value).__name__.upper()} names another initialiser than CLAIM"
            return _shortcoming(value, plan, slot)


def _shortcoming(value: Started | Done | Abandon, plan: ClusterPlan, slot: Slot) -> str | None:
    if isinstance(value, Done):
        seated = {seat.node_name for seat in plan.seats} & set(value.voters)
        enough = len(seated) >= done_voters_min(len(plan.seats))
        return None if enough else "DONE without enough members voting in etcd"
    bound = isinstance(value, Abandon) and slot == "done" and not plan.leased
    return "ABANDON of a plan that was started without a lease" if bound else None


def read_record(record: bytes, *, network_id: str, quorum: int) -> Decision:
    """Verify a record.

    Args:
        record: as `Publish` carries it.
        network_id: whose log it must be of.
        quorum: how many different voters must have signed; more, if the record's own is higher.

    Raises:
        BadMessage: what is wrong with it; a forged, short or foreign record is never accepted.
    """
    found = read_frame(record)
    if not isinstance(found, Record):
        raise BadMessage("a message, not a record")
    votes = tuple(open_envelope(envelope, b"") for envelope in found.votes)
    subject = {_subject(vote) for vote in votes}
    if len(subject) != 1:
        raise BadMessage("its votes are not for one value of one ballot")
    signers = tuple(sorted(vote.message.sender for vote in votes))
    first = votes[0].message
    assert isinstance(first, Accepted)
    if first.network_id != network_id:
        raise BadMessage(f"of network {first.network_id}, not {network_id}")
    if first.value_hash != hash_of(found.value):
        raise BadMessage("its votes are for another value")
    if first.limits[0] == 0 and len(first.limits) != 4:
        raise BadMessage("its votes do not say how many are needed")
    needed = max(quorum, quorum_of(first.limits))
    if len(set(signers)) != len(signers) or len(signers) < needed:
        raise BadMessage(f"{len(set(signers))} voters signed it, {needed} are needed")
    return Decision(
        generation=first.generation,
        slot=first.slot,
        ballot=first.ballot,
        quorum=needed,
        limits=first.limits[:3],
        value=decode_value(found.value, first.slot, first.generation),
        raw_value=found.value,
        signers=signers,
        votes=votes,
        record=record,
    )


def verify_record(record: bytes, *, key: str, network_id: str, quorum: int) -> str | None:
    """Return why `record` may not stand under the ledger key `key`, or None if it may."""
    try:
        decision = read_record(record, network_id=network_id, quorum=quorum)
    except BadMessage as error:
        return str(error)
    return None if decision.key == key else f"belongs under {decision.key}"


def slots_before(slot: Slot) -> tuple[Slot, ...]:
    """Return the slots that must be decided before `slot` opens."""
    return SLOTS[: SLOTS.index(slot)]


def _subject(vote: Authentic) -> tuple[str, Limits, int, Slot, Ballot, bytes]:
    message = vote.message
    if not isinstance(message, Accepted):
        raise BadMessage("holds something that is not a vote")
    return (
        message.network_id,
        message.limits,
        message.generation,
        message.slot,
        message.ballot,
        message.value_hash,
    )


def _flaw(plan: ClusterPlan, generation: int) -> str | None:
    """Return what is wrong with a plan by itself, or None."""
    nodes = [seat.node for seat in plan.seats]
    names = [seat.node_name for seat in plan.seats]
    addresses = [seat.node_ip for seat in plan.seats]
    whole_id = len(plan.cluster_id) == 32 and not set(plan.cluster_id) - set("0123456789abcdef")
    flaws = (
        (plan.generation != generation, f"of generation {plan.generation} in {generation}"),
        (nodes[:1] != [plan.initialiser], "whose first seat is not the initialiser's"),
        (_repeats(nodes) or _repeats(names), "that seats a node twice"),
        (not all(addresses), "with a seat without an address"),
        (_repeats(addresses), "with two seats at one address"),
        (plan.vip in addresses, "with a seat at the virtual address"),
        (not whole_id, "without a cluster id of 32 hex digits"),
    )
    return next((f"a plan {flaw}" for applies, flaw in flaws if applies), None)


def _repeats(values: Sequence[str]) -> bool:
    return len(set(values)) != len(values)
