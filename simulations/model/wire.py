"""Journal rows, records and frames taken apart with plain MessagePack, as the checks see them.

Nothing of the code under test reads them here, so that a fault in it cannot hide itself.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

import msgspec


@dataclass(frozen=True, slots=True)
class PlanSeen:
    """What a CLAIM decides, as far as the checks look at it."""

    generation: int
    cluster_id: str
    initialiser: str
    seats: tuple[str, ...]
    names: tuple[str, ...]  # What Kubernetes calls them.
    ca_hash: str
    token_commitment: str
    leased: bool


def ballot_in(row: bytes) -> list[object]:
    """Return the ballot, a round and a node, of a signed message in a journal."""
    ballot = msgspec.msgpack.decode(msgspec.msgpack.decode(row)[1])[5]
    assert isinstance(ballot, list)
    return ballot


def quorum_counted(frame: bytes) -> int:
    """Return the quorum that a message of an open network says its sender counted, or 0.

    An answer to a ballot carries the ballot's, and the votes in a record theirs.
    """
    tag, body, *_ = msgspec.msgpack.decode(frame)
    if tag != "message":
        return 0
    kind, _network, limits, *_ = msgspec.msgpack.decode(body)
    return int(limits[3]) if kind in _COUNTED and len(limits) > 3 else 0


_COUNTED = ("prepare", "renew", "renewed", "ask", "lease", "down", "released")


def voted_for(row: bytes) -> bytes:
    """Return the value that a journal's row of a vote is for."""
    _tag, _body, _signature, value = msgspec.msgpack.decode(row)
    assert isinstance(value, bytes)
    return value


def value_in(record: bytes) -> bytes:
    """Return the value of a record, an array of tag, value and votes."""
    tag, value, _votes = msgspec.msgpack.decode(record)
    assert tag == "decided"
    assert isinstance(value, bytes)
    return value


@lru_cache(maxsize=1024)
def kind_held(row: bytes | None) -> str:
    """Return what a journal's row of a decision decides; nothing if it is missing or damaged."""
    try:
        return kind_of(value_in(row)) if row is not None else ""
    except msgspec.DecodeError:
        return ""


def voters_of(place: str, record: bytes) -> set[str]:
    """Return whose votes for its value, in that slot and one ballot, a record carries."""
    _tag, value, votes = msgspec.msgpack.decode(record)
    bodies = [msgspec.msgpack.decode(body) for _message, body, *_ in votes]
    ballot = bodies[0][5]
    return {
        sender
        for kind, _network, _limits, generation, slot, of, sender, value_hash in bodies
        if (kind, f"{generation}/{slot}", of) == ("accepted", place, ballot)
        and value_hash == hash_of(value)
    }


def intended_in(row: bytes) -> bytes:
    """Return the hash of the CLAIM that the initialiser's own note names."""
    value_hash = msgspec.msgpack.decode(msgspec.msgpack.decode(row)[1])[7]
    assert isinstance(value_hash, bytes)
    return value_hash


def hash_of(value: bytes) -> bytes:
    """Return what voters sign in a value's stead."""
    return hashlib.sha256(value).digest()


def members_in(value: bytes) -> list[str]:
    """Return the names of the etcd voters in a DONE."""
    return [str(name) for name in msgspec.msgpack.decode(value)[3]]


def kind_of(value: bytes) -> str:
    """Return what a value decides: `claim`, `started`, `done`, `abandon` or `void`."""
    return str(msgspec.msgpack.decode(value)[0])


def words_in(value: bytes) -> str:
    """Return the reason in an ABANDON."""
    return str(msgspec.msgpack.decode(value)[2])


def reason_in(row: bytes) -> str:
    """Return the reason in a signed GaveUp, without its figures and machines' names."""
    reason = str(msgspec.msgpack.decode(msgspec.msgpack.decode(row)[1])[8])
    words = re.sub(r"\bn\d+-[0-9a-f]{8}\b,?|\b\d+\b", "", reason).split()
    return " ".join(words).removeprefix("and ")


def plan_in(value: bytes) -> PlanSeen:
    """Return the plan in a CLAIM."""
    tag, plan = msgspec.msgpack.decode(value)
    assert tag == "claim"
    return PlanSeen(
        plan["generation"],
        plan["cluster_id"],
        plan["initialiser"],
        tuple(seat["node"] for seat in plan["seats"]),
        tuple(seat["node_name"] for seat in plan["seats"]),
        plan["ca_hash"],
        plan["token_commitment"],
        plan["leased"],
    )
