"""A voter's durable memory: rows that are the very messages it signed, checked when read back.

| key | what the row holds |
|---|---|
| `promise/<generation>/<slot>`, `accept/<generation>/<slot>` | its newest Promise and Accepted |
| `ballot/<generation>`, `intent/<generation>` | its newest Prepare, and its Intent |
| `decided/<generation>/<slot>`, `proof/<node>` | a decision's record; who signed two values |
| `doubt` | in words, how it turned out that rows are missing; ends voting whatever it says |

Whoever reads a journal gets all of it or a reason not to vote: a row that is damaged, foreign or
unknown leaves doubt about what was promised, and nobody votes from doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ledger import NodeId
from roles._messages import (
    Accept,
    Accepted,
    Authentic,
    BadMessage,
    Ballot,
    Intent,
    Message,
    Nack,
    Prepare,
    Promise,
    Record,
    read_frame,
)
from roles._records import Decision, decode_value, read_record
from roles._state import Slot
from roles._witness import Proof, read_proof

Row = tuple[str, bytes]


@dataclass(slots=True, kw_only=True)
class Memory:
    """What a journal says. Mutable: the acceptor and the proposer keep it up to date."""

    promised: dict[Slot, Ballot] = field(default_factory=dict)
    accepted: dict[Slot, Authentic] = field(default_factory=dict)  # Accepted, with the value.
    decided: dict[Slot, Decision] = field(default_factory=dict)
    proofs: dict[NodeId, Proof] = field(default_factory=dict)
    intent: bytes | None = None  # Hash of the CLAIM this node means to start.
    own_round: int = 0  # The highest this node ever proposed with.
    limits: set[tuple[int, int, int]] = field(default_factory=set)  # Those ever voted under.
    damage: str | None = None  # The first row that cannot be read.
    doubt: str | None = None  # How it is known that rows are missing.

    @property
    def gap(self) -> str | None:
        """Why this memory may lack a vote, or None if it is whole."""
        return self.doubt if self.doubt is not None else self.damage

    @property
    def has_voted(self) -> bool:
        """Whether this node ever promised or accepted anything."""
        return bool(self.promised or self.accepted)

    def floor(self, slot: Slot) -> Ballot | None:
        """Return the ballot below which this node takes part in nothing, or None."""
        vote = self.accepted.get(slot)
        known = [self.promised.get(slot), vote.message.ballot if vote is not None else None]
        return max((ballot for ballot in known if ballot is not None), default=None)


def row_of(sealed: Authentic) -> Row:
    """Return the journal row that keeps one's own signed message."""
    key = row_key(sealed.message)
    assert key is not None
    return key, sealed.frame


def row_of_decision(decision: Decision) -> Row:
    """Return the journal row that keeps a decision."""
    return f"decided/{decision.generation}/{decision.slot}", decision.record


def row_of_proof(proof: Proof) -> Row:
    """Return the journal row that keeps a proof of equivocation."""
    return f"proof/{proof.culprit}", proof.encode()


def row_of_doubt(reason: str) -> Row:
    """Return the journal row that keeps voting ended."""
    return "doubt", reason.encode()


def row_key(message: Message) -> str | None:
    """Return the key under which the journal keeps this kind of message; None if it does not."""
    at = f"{message.generation}/{message.slot}"
    match message:
        case Promise():
            return f"promise/{at}"
        case Accepted():
            return f"accept/{at}"
        case Prepare():
            return f"ballot/{message.generation}"
        case Intent():
            return f"intent/{message.generation}"
        case Accept() | Nack():
            return None


def read_journal(journal: Iterable[Row], *, me: NodeId, network_id: str, generation: int) -> Memory:
    """Read all rows; the first that does not verify is named in `damage`."""
    memory = Memory()
    for key, data in sorted(journal):
        try:
            _read_row(memory, key, data, me=me, network_id=network_id, generation=generation)
        except BadMessage as error:
            memory.damage = memory.damage or f"row {key} of this node's journal is damaged: {error}"
    return memory


def _read_row(
    memory: Memory, key: str, data: bytes, *, me: NodeId, network_id: str, generation: int
) -> None:
    """Add one row to `memory`.

    Raises:
        BadMessage: what is wrong with the row.
    """
    if key == "doubt":
        memory.doubt = data.decode(errors="replace")
        return
    if key.startswith("proof/"):
        proof = read_proof(data, network_id=network_id)
        if key != f"proof/{proof.culprit}":
            raise BadMessage(f"proves something about {proof.culprit}")
        memory.proofs[proof.culprit] = proof
        return
    found = read_frame(data)
    if isinstance(found, Record):
        # It was checked against this network's quorum before it was written.
        decision = read_record(data, network_id=network_id, quorum=1)
        if key != row_of_decision(decision)[0] or decision.generation != generation:
            raise BadMessage(f"a decision of {decision.key}")
        memory.decided[decision.slot] = decision
        return
    message = found.message
    if message.sender != me or message.network_id != network_id:
        raise BadMessage("another node's or another network's")
    if message.generation != generation or row_key(message) != key:
        raise BadMessage("not what its key says")
    memory.limits.add(message.limits)
    _remember(memory, found)


def _remember(memory: Memory, found: Authentic) -> None:
    message = found.message
    match message:
        case Promise():
            memory.promised[message.slot] = message.ballot
        case Accepted():
            decode_value(found.value, message.slot, message.generation)
            memory.accepted[message.slot] = found
        case Prepare():
            memory.own_round = message.ballot.round
        case Intent():
            memory.intent = message.value_hash
        case Accept() | Nack():
            raise AssertionError(f"{row_key(message)} is the key of no row")
