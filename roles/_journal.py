"""A voter's durable memory: rows that are the very messages it signed, checked when read back.

| key | what the row holds |
|---|---|
| `promise/<generation>/<slot>`, `accept/<generation>/<slot>` | its newest Promise and Accepted |
| `ballot/<generation>`, `intent/<generation>` | its newest Prepare, and its Intent |
| `gave-up/<generation>` | it was the initialiser, and never starts k3s in that generation again |
| `life/<generation>` | it was the initialiser, and how many of its lives began to renew |
| `down/<generation>` | it was a member, and told its initialiser that its k3s is down, for good |
| `decided/<generation>/<slot>`, `proof/<node>` | a decision's record; who signed two values |
| `quorum` | in digits: in an open network, the largest quorum that it ever counted or heard of |
| `doubt` | in words, how it turned out that rows are missing; ends voting whatever it says |

Rows of earlier generations stay, as evidence. Whoever reads a journal gets all of it or a reason
not to vote: a row that is damaged, foreign or unknown leaves doubt about what was promised, and
nobody votes from doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ledger import NodeId
from roles._messages import (
    Accepted,
    Authentic,
    BadMessage,
    Ballot,
    Down,
    GaveUp,
    Intent,
    Life,
    Message,
    Prepare,
    Promise,
    Record,
    read_frame,
)
from roles._records import Claim, Decision, Done, Started, Void, decode_value, read_record
from roles._state import SLOTS, Slot
from roles._types import ClusterPlan, Limits, quorum_of
from roles._witness import Proof, read_proof

Row = tuple[str, bytes]

QUORUM_DIGITS_MAX = 20
"""More than any number that a message may sign has."""


@dataclass(slots=True, kw_only=True)
class Memory:
    """One generation of a journal. Mutable: acceptor and proposer keep it up to date."""

    generation: int
    promised: dict[Slot, Ballot] = field(default_factory=dict)
    accepted: dict[Slot, Authentic] = field(default_factory=dict)  # Accepted, with the value.
    decided: dict[Slot, Decision] = field(default_factory=dict)
    intent: bytes | None = None  # Hash of the CLAIM this node means to start.
    gave_up: str | None = None  # Why this node, the initialiser, gave the generation up.
    lives: int = 0  # How often this node, the initialiser, began to renew.
    said_down: bool = False  # This node, a member, told the initialiser that its k3s is down.
    own_round: int = 0  # The highest this node ever proposed with.

    @property
    def has_voted(self) -> bool:
        """Whether this node ever promised or accepted anything in this generation."""
        return bool(self.promised or self.accepted)

    @property
    def plan(self) -> ClusterPlan | None:
        """The plan that CLAIM decided."""
        decision = self.decided.get("claim")
        if decision is None:
            return None
        assert isinstance(decision.value, Claim)
        return decision.value.plan

    @property
    def started(self) -> bool:
        """Whether STARTED is decided."""
        decision = self.decided.get("started")
        return decision is not None and isinstance(decision.value, Started)

    @property
    def formed(self) -> bool:
        """Whether DONE is decided."""
        decision = self.decided.get("done")
        return decision is not None and isinstance(decision.value, Done)

    @property
    def abandonment(self) -> Decision | None:
        """The decision that ended this generation without a cluster, if it is known."""
        return next((d for d in self.decided.values() if d.abandons), None)

    @property
    def voided(self) -> bool:
        """Whether this node's last vote in DONE's slot was for the end of all plans."""
        vote = self.accepted.get("done")
        return vote is not None and isinstance(
            decode_value(vote.value, "done", self.generation), Void
        )

    @property
    def open_slot(self) -> Slot | None:
        """The slot to be decided next, or None if the generation is over."""
        if self.abandonment is not None:
            return None
        return next((slot for slot in SLOTS if slot not in self.decided), None)

    def floor(self, slot: Slot) -> Ballot | None:
        """Return the ballot below which this node takes part in nothing, or None."""
        vote = self.accepted.get(slot)
        known = [self.promised.get(slot), ballot_of(vote) if vote is not None else None]
        return max((ballot for ballot in known if ballot is not None), default=None)


@dataclass(slots=True, kw_only=True)
class Journal:
    """All that a node remembers, by generation."""

    memories: dict[int, Memory] = field(default_factory=dict)
    proofs: dict[NodeId, Proof] = field(default_factory=dict)
    limits: set[Limits] = field(default_factory=set)  # Bounds ever voted under.
    quorum: int = 0  # The largest ever known of: of a ballot, counted, or heard of.
    quorum_kept: int = 0  # The same, as far as the row of that name has it.
    damage: str | None = None  # The first row that cannot be read.
    doubt: str | None = None  # How it is known that rows are missing.

    def of(self, generation: int) -> Memory:
        """Return what is remembered of a generation."""
        return self.memories.setdefault(generation, Memory(generation=generation))

    @property
    def current(self) -> Memory:
        """The generation in which this node takes part: the one that formed, else the newest.

        A decision of a generation proves that all before it were abandoned: nobody votes in one
        before it knows that.
        """
        known = sorted(generation for generation, memory in self.memories.items() if memory.decided)
        formed = next((g for g in known if self.memories[g].formed), None)
        if formed is not None:
            return self.of(formed)
        newest = known[-1] if known else 1
        over = self.of(newest).abandonment is not None
        return self.of(newest + 1 if over else newest)

    @property
    def followed(self) -> set[Limits]:
        """The bounds of those who decided what this node follows; never more than one."""
        memories = self.memories.values()
        return {d.limits for memory in memories for d in memory.decided.values()}

    @property
    def gap(self) -> str | None:
        """Why this journal may lack a vote, or None if it is whole."""
        return self.doubt if self.doubt is not None else self.damage

    @property
    def has_voted(self) -> bool:
        """Whether this node ever promised or accepted anything."""
        return any(memory.has_voted for memory in self.memories.values())


def ballot_of(vote: Authentic) -> Ballot:
    """Return the ballot of an Accepted."""
    assert isinstance(vote.message, Accepted)
    return vote.message.ballot


def row_of(sealed: Authentic) -> Row:
    """Return the journal row that keeps one's own signed message."""
    key = row_key(sealed.message)
    assert key is not None
    return key, sealed.frame


def row_of_decision(decision: Decision) -> Row:
    """Return the journal row that keeps a decision."""
    return f"decided/{decision.generation}/{decision.slot}", decision.record


def row_of_quorum(quorum: int) -> Row:
    """Return the journal row that keeps a quorum from falling."""
    return "quorum", str(quorum).encode()


def row_of_proof(proof: Proof) -> Row:
    """Return the journal row that keeps a proof of equivocation."""
    return f"proof/{proof.culprit}", proof.encode()


def row_of_doubt(reason: str) -> Row:
    """Return the journal row that keeps voting ended."""
    return "doubt", reason.encode()


def row_key(message: Message) -> str | None:
    """Return the key under which the journal keeps this kind of message; None if it does not."""
    generation = message.generation
    match message:
        case Promise():
            return f"promise/{generation}/{message.slot}"
        case Accepted():
            return f"accept/{generation}/{message.slot}"
        case Prepare() | Intent() | GaveUp() | Life() | Down():
            return f"{_ONCE[type(message)]}/{generation}"
        case _:
            return None


_ONCE: dict[type[Message], str] = {
    Prepare: "ballot",
    Intent: "intent",
    GaveUp: "gave-up",
    Life: "life",
    Down: "down",
}
"""What the rows are called of which a generation has at most one."""


def read_journal(rows: Iterable[Row], *, me: NodeId, network_id: str) -> Journal:
    """Read all rows; the first that does not verify is named in `damage`."""
    journal = Journal()
    for key, data in sorted(rows):
        try:
            _read_row(journal, key, data, me=me, network_id=network_id)
        except BadMessage as error:
            found = f"row {key} of this node's journal is damaged: {error}"
            journal.damage = journal.damage or found
    return journal


def _read_row(journal: Journal, key: str, data: bytes, *, me: NodeId, network_id: str) -> None:
    """Add one row to `journal`.

    Raises:
        BadMessage: what is wrong with the row.
    """
    if key == "doubt":
        journal.doubt = data.decode(errors="replace")
        return
    if key == "quorum":
        _read_quorum(journal, data)
        return
    if key.startswith("proof/"):
        _read_proof(journal, key, data, network_id=network_id)
        return
    found = read_frame(data)
    if isinstance(found, Record):
        # It was checked against this network's quorum before it was written.
        decision = read_record(data, network_id=network_id, quorum=1)
        if key != row_of_decision(decision)[0]:
            raise BadMessage(f"a decision of {decision.key}")
        journal.of(decision.generation).decided[decision.slot] = decision
        journal.quorum = max(journal.quorum, decision.quorum)
        return
    if not isinstance(found, Authentic):
        raise BadMessage("not a message of this node's own")
    message = found.message
    if message.sender != me or message.network_id != network_id:
        raise BadMessage("another node's or another network's")
    if row_key(message) != key:
        raise BadMessage("not what its key says")
    journal.limits.add(message.limits[:3])
    journal.quorum = max(journal.quorum, quorum_of(message.limits))
    _remember(journal.of(message.generation), found)


def _read_quorum(journal: Journal, data: bytes) -> None:
    if not data.isdigit() or len(data) > QUORUM_DIGITS_MAX:  # Of bytes: ASCII's digits only.
        raise BadMessage("not a number")
    journal.quorum_kept = int(data)
    journal.quorum = max(journal.quorum, journal.quorum_kept)


def _read_proof(journal: Journal, key: str, data: bytes, *, network_id: str) -> None:
    proof = read_proof(data, network_id=network_id)
    if key != f"proof/{proof.culprit}":
        raise BadMessage(f"proves something about {proof.culprit}")
    journal.proofs[proof.culprit] = proof


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
        case GaveUp():
            memory.gave_up = message.reason
        case Life():
            memory.lives = message.lives
        case Down():
            memory.said_down = True
        case _:
            raise AssertionError(f"{row_key(message)} is the key of no row")
