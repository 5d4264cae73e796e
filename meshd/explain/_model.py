"""The Explanation object of the local API. Fields are only ever added."""

from __future__ import annotations

from typing import Literal

import msgspec

from ledger import NodeId

Topic = Literal["role", "genesis", "join", "vip"]

API_VERSION = "meshd/v1"


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """A value of this node's configuration, and where it stands."""

    key: str  # Such as `p2p.auto.ha.master_nodes`.
    value: str  # As JSON; secrets are hidden.
    place: str  # FILE:LINE.


class EntryRef(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the ledger; its signature is valid, or it would not be held."""

    key: str
    author: str  # The name of the node that signed it.
    author_id: NodeId
    seq: int
    stamp_ms: int


class RecordRef(msgspec.Struct, frozen=True, kw_only=True):
    """A decision: who proposed it with which ballot, and who signed."""

    key: str  # Of the ledger: genesis/<generation>/<slot>.
    round: int
    proposer: str
    signers: tuple[str, ...]  # Names, sorted.


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the reasoning."""

    subject: str  # One word: what the step is about.
    text: str
    fulfilled: bool | None = None  # Of a step that can be waited for: whether it is done.
    settings: tuple[Setting, ...] = ()
    entries: tuple[EntryRef, ...] = ()
    record: RecordRef | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The node that the question is about."""

    id: NodeId
    name: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, its causes, each resting on those before it, and what would change it."""

    api_version: str = API_VERSION
    kind: str = "Explanation"
    topic: Topic
    node: Subject
    answer: str  # Completes "n1: …".
    causes: tuple[Cause, ...]
    waiting_for: str | None
    would_change_if: tuple[str, ...]
