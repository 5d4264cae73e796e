"""Who has a seat after an operator reset etcd's membership: signed records, and which one holds.

A cluster's first seats are its plan's: epoch 0. Each reset begins an epoch with fewer seats, signed
by the survivor alone, since nobody else is left to sign; it names the record that it follows, so
the records form chains. Invariant: of two chains that part none is better, however long it is,
until a reset in one of them names the head of the other as ended; should the other have grown
meanwhile, nobody chose between them yet. A node follows the one whose survivor it is, or that it
followed before, and else neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec

from ledger import NodeId, Signer, verify
from roles._messages import NETWORK_ID_MAX, Hash, Node
from roles._types import ClusterPlan, Seat

_DOMAIN = b"meshd/seats/v1\x00"
_VALUE_MAX_BYTES = 32 * 1024
_SEATS_MAX = 99
_WORDS_MAX = 200

EPOCH_MAX = 10**6


class BadReset(ValueError):
    """Bytes that are not an authentic record of this network."""


class SeatsRecord(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What the survivor signs.

    Args:
        before: digest of the record of the epoch before, or `origin_of` the plan.
        seats: who has a seat from now on, the survivor first; of others, whose databases are of
            before the reset, each joins afresh.
        dead: whose seats are given up, as the operator confirmed.
        by: who asked for it, as the survivor's machine knows them.
        at_ms: when, by the survivor's wall clock; for people.
        ended: digests of the heads of chains that contradict this one, and whose databases give
            way to it. Its epoch is higher than theirs, so that these count as of before.
        snapshot: name of the file that the survivor's database was restored from; "": its own.
    """

    network_id: Annotated[str, msgspec.Meta(max_length=NETWORK_ID_MAX)]
    cluster_id: Annotated[str, msgspec.Meta(max_length=32)]
    epoch: Annotated[int, msgspec.Meta(ge=1, le=EPOCH_MAX)]
    before: Hash
    survivor: Node
    seats: Annotated[tuple[Seat, ...], msgspec.Meta(min_length=1, max_length=_SEATS_MAX)]
    dead: Annotated[tuple[Node, ...], msgspec.Meta(max_length=_SEATS_MAX)]
    by: Annotated[str, msgspec.Meta(max_length=_WORDS_MAX)]
    at_ms: int
    ended: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=_SEATS_MAX)] = ()
    snapshot: Annotated[str, msgspec.Meta(max_length=_WORDS_MAX)] = ""


class _Sealed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    body: bytes
    signature: bytes


_sealed = msgspec.msgpack.Decoder(_Sealed)
_bodies = msgspec.msgpack.Decoder(SeatsRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """A record whose signature holds; `digest` is what its successor names."""

    record: SeatsRecord
    digest: bytes


Resets = Mapping[bytes, Reset]
"""Records by digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """Where this node stands among the resets of its cluster.

    Args:
        plan: the plan with the seats that hold now; None without a formed cluster.
        chain: the resets that this node follows, the oldest first.
        newest: the epoch of the chain that it follows; if it follows none of several, the highest.
        rivals: the heads of all chains, if there are several; sorted by digest.
        before_last: the seats that the last reset of the chain began with.
        readdressed: the last epoch of the chain in which a seat got another address; 0: never.
    """

    plan: ClusterPlan | None = None
    chain: tuple[Reset, ...] = ()
    newest: int = 0
    rivals: tuple[Reset, ...] = ()
    before_last: tuple[Seat, ...] = ()
    readdressed: int = 0

    @property
    def epoch(self) -> int:
        """The epoch that this node follows; 0 is the plan's own."""
        return _epoch(self.chain)

    @property
    def survivor(self) -> NodeId | None:
        """Whose reset was the last one followed; None in epoch 0."""
        return self.chain[-1].record.survivor if self.chain else None

    @property
    def head(self) -> bytes:
        """The digest of the last record followed; empty in epoch 0."""
        return self.chain[-1].digest if self.chain else b""


def sign_reset(signer: Signer, record: SeatsRecord) -> bytes:
    """Return the value for `cluster/seats/<epoch>`."""
    assert record.survivor == signer.node_id
    body = msgspec.msgpack.encode(record)
    return msgspec.msgpack.encode(_Sealed(body, signer.sign(_DOMAIN + body)))


def read_reset(value: bytes, *, network_id: str) -> Reset:
    """Verify a record by itself; whether it follows another lawfully is `objection`'s question.

    Raises:
        BadReset: what is wrong with it.
    """
    if len(value) > _VALUE_MAX_BYTES:
        raise BadReset(f"a record of {len(value)} bytes, at most {_VALUE_MAX_BYTES}")
    try:
        sealed = _sealed.decode(value)
        record = _bodies.decode(sealed.body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadReset("not a record of seats") from error
    if record.network_id != network_id:
        raise BadReset(f"of network {record.network_id}, not {network_id}")
    if not verify(record.survivor, sealed.signature, _DOMAIN + sealed.body):
        raise BadReset("the survivor did not sign it")
    return Reset(record=record, digest=hashlib.sha256(_DOMAIN + sealed.body).digest())


def origin_of(plan: ClusterPlan) -> bytes:
    """Return what the first reset of a plan's cluster names as the record before it."""
    return hashlib.sha256(f"{plan.cluster_id}/{plan.generation}".encode()).digest()


def objection(record: SeatsRecord, before: tuple[Seat, ...]) -> str | None:
    """Return why a record cannot follow an epoch with these seats, or None."""
    held = {seat.node: seat.node_name for seat in before}
    kept = {seat.node: seat.node_name for seat in record.seats}
    addresses = [seat.node_ip for seat in record.seats]
    flaws = (
        (record.survivor not in held, "its survivor had no seat"),
        (record.seats[0].node != record.survivor, "its survivor is not the first seat"),
        (len(kept) < len(record.seats), "it seats a node twice"),
        (any(held.get(node) != name for node, name in kept.items()), "it seats a newcomer"),
        (not all(addresses) or len(set(addresses)) < len(addresses), "two seats have one address"),
        (sorted(record.dead) != sorted(set(held) - set(kept)), "it does not account for each seat"),
    )
    return next((why for applies, why in flaws if applies), None)


def judge(
    record: SeatsRecord, plans: Iterable[ClusterPlan], resets: Resets
) -> tuple[bool | None, str]:
    """Return whether a record is lawful (None: not known yet), and why not."""
    plan = next((plan for plan in plans if plan.cluster_id == record.cluster_id), None)
    if plan is None:
        return None, "its cluster is not known here"
    if record.before == origin_of(plan):
        epoch, seats = 0, plan.seats
    elif record.before in resets:
        parent = resets[record.before].record
        epoch, seats = parent.epoch, parent.seats
    else:
        return None, "the record before it is not known here"
    why = objection(record, seats)
    skips = bool(record.ended) and record.epoch > epoch
    if why is None and record.epoch != epoch + 1 and not skips:
        why = f"epoch {record.epoch} cannot follow epoch {epoch}"
    return why is None, why or ""


def follow(plan: ClusterPlan | None, resets: Resets, *, held: bytes, me: NodeId) -> Succession:
    """Return where `me` stands.

    Args:
        plan: of the formed cluster; None before that.
        resets: all lawful records known.
        held: the head that this node followed before, as it wrote down; empty for none.
        me: this node.
    """
    if plan is None:
        return Succession()
    heads = _heads(_chains(plan, resets))
    chosen = heads[0]
    if len(heads) > 1:
        ours = [c for c in heads if c[-1].record.survivor == me]
        ours = ours or [c for c in heads if held in _digests(c)]
        chosen = ours[0] if len(ours) == 1 else _common(heads)
    rivals = tuple(chain[-1] for chain in heads) if len(heads) > 1 else ()
    followed = chosen if chosen in heads else max(heads, key=_epoch)
    seats = chosen[-1].record.seats if chosen else plan.seats
    return Succession(
        plan=replace(plan, seats=seats) if chosen else plan,
        chain=chosen,
        newest=_epoch(followed),
        rivals=rivals,
        before_last=chosen[-2].record.seats if len(chosen) > 1 else plan.seats,
        readdressed=_readdressed(plan, chosen),
    )


def _readdressed(plan: ClusterPlan, chain: _Chain) -> int:
    """Return the last epoch in which a seat got another address, or 0.

    One in which another chain was ended counts, too: who followed that took its address there.
    """
    last, seats = 0, plan.seats
    for reset in chain:
        if moved_seats(seats, reset.record.seats) or reset.record.ended:
            last = reset.record.epoch
        seats = reset.record.seats
    return last


def moved_seats(before: Iterable[Seat], after: Iterable[Seat]) -> tuple[Seat, ...]:
    """Return the seats of `after` whose nodes had another address before."""
    was = {seat.node: seat.node_ip for seat in before}
    return tuple(seat for seat in after if was.get(seat.node, seat.node_ip) != seat.node_ip)


_Chain = tuple[Reset, ...]


def _chains(plan: ClusterPlan, resets: Resets) -> list[_Chain]:
    """Return every chain from the plan on, the empty one included."""
    chains: list[_Chain] = [()]
    known = sorted(resets.values(), key=lambda reset: (reset.record.epoch, reset.digest))
    for reset in known:
        for chain in tuple(chains):
            before = chain[-1].digest if chain else origin_of(plan)
            if reset.record.before == before:
                chains.append((*chain, reset))
    return chains


def _heads(chains: list[_Chain]) -> list[_Chain]:
    """Return the chains that nothing follows, and that none of the others ended; at least one."""
    known = {chain[:-1] for chain in chains if chain}
    whole = sorted((chain for chain in chains if chain not in known), key=_digests)
    # None can end each other: each would have to hold the other's hash.
    ended = {digest for chain in whole for reset in chain for digest in reset.record.ended}
    return [chain for chain in whole if not chain or chain[-1].digest not in ended]


def _epoch(chain: _Chain) -> int:
    return chain[-1].record.epoch if chain else 0


def _digests(chain: _Chain) -> tuple[bytes, ...]:
    return tuple(reset.digest for reset in chain)


def _common(chains: list[_Chain]) -> _Chain:
    """Return what all chains begin with."""
    length = 0
    while len({chain[length].digest for chain in chains}) == 1:
        length += 1  # They differ at the end at the latest.
    return chains[0][:length]
