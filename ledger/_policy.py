"""Who may write what: authority by key, judged before a signature is looked at.

| key | author |
|---|---|
| `node/<id>/<name>` | that node |
| `genesis/<generation>/<slot>`, `cluster/seats/<epoch>` | any, if the value proves itself |
| `cluster/order/<node>`, `sealed/<recipient>/<name>` | a seat holder |
| `revoke/<id>`, `keyring/<epoch>` | a seat holder |

Everything else is refused. Answers must never turn from accept to refuse (one who held a seat
stays one who held a seat): replicas pass on what they once accepted, and whoever refuses it
counts that against an honest peer. What an entry is still good for *now* is its reader's question.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ledger._identity import NodeId


class Verdict(StrEnum):
    """`DEFER`: authority is not known yet; the entry is dropped and asked for again, no fault."""

    ACCEPT = "accepted"
    DEFER = "authority not known yet"
    WRONG_AUTHOR = "wrong author"
    UNKNOWN_KEY = "unknown key"
    BAD_VALUE = "the value does not prove itself"


class Authority(Protocol):
    """What a replica asks about every entry of another author."""

    def judge(self, author: NodeId, key: str, value: bytes | None) -> Verdict:
        """Return whether `author` may write `value` (None: a tombstone) under `key`."""


_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NUMBER = r"0|[1-9][0-9]{0,8}"
_NODE = re.compile(rf"node/(?P<id>[A-Za-z0-9]+)/{_NAME}")
_GENESIS = re.compile(rf"genesis/(?P<generation>{_NUMBER})/(?P<slot>{_NAME})")
_SEATS = re.compile(rf"cluster/seats/(?P<epoch>{_NUMBER})")
_SEAT_HOLDERS = re.compile(
    rf"cluster/order/{_NAME}|sealed/[A-Za-z0-9]+/{_NAME}|revoke/{_NAME}|keyring/(?:{_NUMBER})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The table above. Each question may be answered by None: not known yet.

    Args:
        genesis_valid: whether a value decides (generation, slot).
        seats_valid: whether a value is the list of seats of that epoch.
        held_seat: whether a node holds or ever held a seat.
    """

    genesis_valid: Callable[[int, str, bytes], bool | None]
    seats_valid: Callable[[int, bytes], bool | None]
    held_seat: Callable[[NodeId], bool | None]

    def judge(self, author: NodeId, key: str, value: bytes | None) -> Verdict:
        """Return whether `author` may write `value` under `key`; see `Authority`."""
        if match := _NODE.fullmatch(key):
            return Verdict.ACCEPT if match["id"] == author else Verdict.WRONG_AUTHOR
        if _SEAT_HOLDERS.fullmatch(key):
            return _verdict(self.held_seat(author), Verdict.WRONG_AUTHOR)
        if _GENESIS.fullmatch(key) or _SEATS.fullmatch(key):
            return _verdict(self._proves_itself(key, value), Verdict.BAD_VALUE)
        return Verdict.UNKNOWN_KEY

    def _proves_itself(self, key: str, value: bytes | None) -> bool | None:
        if value is None:  # What was decided is not deleted.
            return False
        if match := _GENESIS.fullmatch(key):
            return self.genesis_valid(int(match["generation"]), match["slot"], value)
        match = _SEATS.fullmatch(key)
        assert match is not None
        return self.seats_valid(int(match["epoch"]), value)


def _verdict(answer: bool | None, otherwise: Verdict) -> Verdict:  # noqa: FBT001 - not a switch.
    if answer is None:
        return Verdict.DEFER
    return Verdict.ACCEPT if answer else otherwise
