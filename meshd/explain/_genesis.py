"""How far the decision log is, slot by slot: who proposed, who signed, who has not, and why.

Everything is read from `GenesisState`, so a slot or a generation more needs no word here.
"""

from __future__ import annotations

from ledger import NodeId
from meshd.explain._evidence import entries, listed, names, own_entry, record_of
from meshd.explain._given import Given
from meshd.explain._lease import lease_causes
from meshd.explain._model import Cause, Explanation, Subject
from meshd.explain._role import SIZE_KEYS
from meshd.node import Node, reset_text
from roles import GenesisState, SlotState

_MEANINGS = {
    "claim": "who starts the cluster, and who has a seat",
    "started": "the initialiser may start k3s, once",
    "done": "enough members vote in etcd: the cluster stands",
}


def explain_genesis(node: Node, given: Given, whose: NodeId) -> Explanation:
    """Return how far genesis is as `node` knows it; for another node also its part in it."""
    state = node.genesis.state
    causes = [
        _rule(node, given),
        _voters(node, state),
        *_not_counted(node, state),
        *_not_voting(node),
        *_problems(state),
        *_given_up(node, state),
        *_earlier(node, state),
    ]
    waits: str | None = None  # The first slot that is not decided; the next ones wait for it.
    for slot in state.slots:
        causes.append(_decided(node, state, slot) if slot.decided else _open(node, slot, waits))
        waits = waits or (None if slot.decided else slot.slot.upper())
    causes += lease_causes(node, state, given.now)
    causes += _resets(node)
    if whose != node.me:
        causes.append(_part_of(node, state, whose))
    return Explanation(
        topic="genesis",
        node=Subject(id=whose, name=node.directory.name(whose)),
        answer=_answer(node, state),
        causes=tuple(causes),
        waiting_for=state.waiting_for,
        would_change_if=_changes(node, state),
    )


def _answer(node: Node, state: GenesisState) -> str:
    plan = state.plan
    first = f", started by {node.directory.name(plan.initialiser)}" if plan is not None else ""
    return f"genesis is {state.phase}, generation {state.generation}{first}"


def _rule(node: Node, given: Given) -> Cause:
    bounds, quorum = node.bounds, node.genesis.state.quorum
    why = f"at most {bounds.nodes_max} machines may vote, so any two decisions share a voter"
    if bounds.is_open:
        why = "a majority of the voters known here; nothing bounds those that are not (open)"
    return Cause(
        subject="rule",
        text=f"{quorum} votes decide a slot; {why}",
        settings=given.stated(*SIZE_KEYS),
    )


def _voters(node: Node, state: GenesisState) -> Cause:
    present = node.directory.present()
    here = names(node, (voter for voter in state.voters if voter in present))
    away = names(node, (voter for voter in state.voters if voter not in present))
    text = f"{len(here)} counted and here ({listed(here)})"
    text += f"; not reached: {listed(away)}" if away else ""
    enough = len(here) >= state.quorum
    return Cause(subject="voters", text=text, fulfilled=None if _over(state) else enough)


def _not_counted(node: Node, state: GenesisState) -> list[Cause]:
    return [
        Cause(
            subject="excluded",
            text=f"{node.directory.name(one.node)} is not counted: {one.reason}",
            entries=own_entry(node, one.node, "facts"),
        )
        for one in sorted(state.excluded, key=lambda one: node.directory.name(one.node))
        if one.node != node.me or not state.problems  # Then the problem says it.
    ]


def _not_voting(node: Node) -> list[Cause]:
    """Return the machines that never asked to vote, and how that is known."""
    found = []
    for known in node.directory:
        facts = known.facts
        if facts is None:
            continue
        if facts.role_wish in ("worker", "none"):
            why = f"its p2p.role is {facts.role_wish}"
        elif not facts.may_vote:
            why = "its token lets it join only, or its disk would not survive a power cut"
        else:
            continue
        text = f"{known.name} does not vote: {why}"
        entries_ = own_entry(node, known.node, "facts")
        found.append(Cause(subject="no voter", text=text, entries=entries_))
    return found


def _problems(state: GenesisState) -> list[Cause]:
    return [
        Cause(
            subject="problem",
            text=f"{problem.code}: {problem.message}; fix: {problem.fix}",
            fulfilled=False,
        )
        for problem in state.problems
    ]


def _given_up(node: Node, state: GenesisState) -> list[Cause]:
    """Return the generations before this one, and why each was given up."""
    causes = []
    for before in state.history:
        first = before.initialiser
        whose = f" of {node.directory.name(first)}" if first is not None else ""
        why = before.reason or "a later one began, which needs that it was"
        decided = [slot for slot in before.slots if slot.decided]
        signed = {signer for slot in decided for signer in slot.signers}
        last = listed(names(node, before.failed))
        blamed = f"; {last} ranks last from then on" if before.failed else ""
        by = f"; signed by {listed(names(node, signed))}" if signed else ""
        keys = [f"genesis/{before.number}/{slot.slot}" for slot in decided]
        text = f"generation {before.number}{whose} was given up: {why}{blamed}{by}"
        held = tuple(entry for key in keys for entry in entries(node, key))
        causes.append(Cause(subject=f"gen. {before.number}", text=text, entries=held))
    return causes


def _earlier(node: Node, state: GenesisState) -> list[Cause]:
    """Return what the ledger holds of generations that this node knows nothing else of."""
    told = [f"genesis/{number}/" for number in (state.generation, *_numbers(state))]
    keys = sorted({key for _, key in node.replica.entries if key.startswith("genesis/")})
    return [
        Cause(subject="earlier", text=f"{key} was decided, too", entries=entries(node, key))
        for key in keys
        if not key.startswith(tuple(told)) and entries(node, key)
    ]


def _numbers(state: GenesisState) -> list[int]:
    return [before.number for before in state.history]


def _decided(node: Node, state: GenesisState, slot: SlotState) -> Cause:
    record, held = record_of(node, slot.slot)
    missing = [voter for voter in state.voters if voter not in slot.signers]
    text = f"decided: {_content(node, state, slot)}"
    if missing:
        text += f"; not in the record: {listed(names(node, missing))} (a quorum was enough)"
    return Cause(subject=slot.slot.upper(), text=text, fulfilled=True, entries=held, record=record)


def _content(node: Node, state: GenesisState, slot: SlotState) -> str:
    plan = state.plan
    if slot.value is not None and slot.value.startswith("abandoned"):
        return slot.value
    if plan is None:
        return _meaning(slot)
    first = node.directory.name(plan.initialiser)
    seats = listed(node.directory.name(seat.node) for seat in plan.seats)
    contents = {
        "claim": f"{first} starts the cluster; control plane {seats}",
        "started": f"{first} may start k3s with cluster-init",
        "done": f"the cluster stands; its kube-system is {state.kube_system_uid or 'unknown'}",
    }
    return contents.get(slot.slot, _meaning(slot))


def _resets(node: Node) -> list[Cause]:
    """Return each reset of etcd's membership since, and those that contradict one another."""
    succession = node.standing.succession
    followed = {reset.digest for reset in succession.chain}
    told = [
        *((reset, True) for reset in succession.chain),
        *((reset, False) for reset in succession.rivals if reset.digest not in followed),
    ]
    causes = []
    for reset, is_followed in told:
        record = reset.record
        doubt = "" if is_followed else "; this node follows neither this one nor its rivals"
        followed_rival = any(rival in succession.chain for rival in succession.rivals)
        doubt = "; this node follows another one" if followed_rival and doubt else doubt
        text = reset_text(node.directory, record) + doubt
        held = entries(node, f"cluster/seats/{record.epoch}")
        causes.append(
            Cause(
                subject="RESET",
                text=text,
                fulfilled=is_followed,
                entries=tuple(one for one in held if one.author_id == record.survivor),
            )
        )
    return causes


def _meaning(slot: SlotState) -> str:
    return _MEANINGS.get(slot.slot, "see docs/genesis.md")


def _open(node: Node, slot: SlotState, waits: str | None) -> Cause:
    how = _ballot(node, slot) if waits is None else f"after {waits}"
    text = f"open ({_meaning(slot)}): {how}"
    if slot.voted is not None:
        proposer = node.directory.name(slot.voted[1])
        text += f"; this node voted in ballot {slot.voted[0]} of {proposer} for: {slot.voted_for}"
    return Cause(subject=slot.slot.upper(), text=text, fulfilled=False)


def _ballot(node: Node, slot: SlotState) -> str:
    """Return what this node knows of the vote: only the proposer counts."""
    if slot.ballot is None or slot.proposer is None:
        return "no ballot has reached this node"
    number = f"ballot {slot.ballot[0]}"
    if slot.proposer != node.me:
        return f"this node promised {number} to {node.directory.name(slot.proposer)}, who counts"
    if not slot.signers:
        promised = listed(names(node, slot.promises)) if slot.promises else "nobody yet"
        return f"this node proposes with {number} and collects promises; promised: {promised}"
    missing = [voter for voter in node.genesis.state.voters if voter not in slot.signers]
    signed, lacking = listed(names(node, slot.signers)), listed(names(node, missing))
    return f"this node proposes with {number}; signed: {signed}; not yet: {lacking}"


def _part_of(node: Node, state: GenesisState, whose: NodeId) -> Cause:
    name = node.directory.name(whose)
    signed = [slot.slot.upper() for slot in state.slots if whose in slot.signers]
    counted = "is counted as a voter" if whose in state.voters else "is not counted as a voter"
    text = f"{name} {counted}; its signature is in {listed(signed) if signed else 'no record'}"
    return Cause(subject="part", text=text)


def _started(state: GenesisState) -> bool:
    return any(slot.slot == "started" and slot.decided for slot in state.slots)


def _over(state: GenesisState) -> bool:
    return state.phase == "formed"


def _changes(node: Node, state: GenesisState) -> tuple[str, ...]:
    if _over(state):
        return ("all machines start afresh with a new token: a decided slot never changes",)
    if state.phase.startswith("halted"):
        return tuple(
            f"what {problem.code} asks for is done: {problem.fix}" for problem in state.problems
        )
    if state.plan is not None:
        first = node.directory.name(state.plan.initialiser)
        needed = "k3s comes up on the control plane" if _started(state) else f"{first} proposes"
        return (f"{needed}, and a quorum of voters can be reached: then the open slot is decided",)
    missing = state.quorum - len([v for v in state.voters if v in node.directory.present()])
    if missing > 0:
        machines = "one more machine" if missing == 1 else f"{missing} more machines"
        return (f"{machines} with this token and the right to vote can be reached",)
    return ("the best-ranked voter proposes, and a quorum answers",)
