"""How far a node has come into the cluster: found, connected, synchronised, role, secrets, k3s.

The steps stand in the order in which one needs the other, so the first that is not done is the
diagnosis.
"""

from __future__ import annotations

from ledger import NodeId
from meshd.explain._evidence import entries, listed, names, own_entry, record_of
from meshd.explain._given import Contact, Given, Refused
from meshd.explain._model import Cause, Explanation, Subject
from meshd.node import Known, Node, seat_in

REFUSALS_SHOWN_MAX = 5
_SECRETS = {"server": ("agent-token", "server-token"), "worker": ("agent-token",)}


def explain_join(node: Node, given: Given, whose: NodeId) -> Explanation:
    """Return how far `whose` is, as `node` knows it."""
    known = node.directory.find(whose) or Known(node=whose)
    if whose == node.me:
        steps = [_network(node, given), *_found(node, given), *_connected(node, given)]
        steps.append(_synchronised(node))
    else:
        steps = [*_found_peer(given, known), *_peer_refused(given, known)]
        steps += [_peer_connected(node, given, known), _peer_facts(node, known)]
    steps += _roles(node, known)
    missing = next((step for step in steps if step.fulfilled is False), None)
    return Explanation(
        topic="join",
        node=Subject(id=whose, name=known.name),
        answer=_answer(node, known, missing),
        causes=tuple(steps),
        waiting_for=_waiting(node, known, missing),
        would_change_if=_changes(node, given, known, missing),
    )


def _answer(node: Node, known: Known, missing: Cause | None) -> str:
    if missing is None:
        return "has joined"
    ready = known.k3s is not None and known.k3s.state == "ready"
    if ready and node.standing.formed:
        return f"has joined the cluster; not so now: {missing.subject}"
    return f"has not joined yet; the first step that is not done: {missing.subject}"


def _waiting(node: Node, known: Known, missing: Cause | None) -> str | None:
    if known.node == node.me:
        return node.waiting_for
    return known.k3s.waiting_for if known.k3s is not None and missing is not None else None


# This node.


def _network(node: Node, given: Given) -> Cause:
    return Cause(
        subject="network",
        text=f"{node.network_id}, which this node's token names",
        fulfilled=True,
        settings=given.stated("p2p.network_token", "p2p.network_id"),
    )


def _alone(node: Node) -> bool:
    """Whether there is nobody to be found: one machine is the whole network."""
    return node.bounds.nodes_max == 1


def _found(node: Node, given: Given) -> list[Cause]:
    met = {one.peer for one in given.contacts if one.peer is not None}
    peers = sorted(met | {known.node for known in node.directory.others() if known.connected})
    found = [f"{node.directory.name(peer)} ({_ways(given.contact(peer))})" for peer in peers]
    looked = _looked(given)
    settings = given.stated("p2p.meshd.seeds", "p2p.meshd.discovery", "p2p.meshd.interface")
    causes = [
        Cause(
            subject="found",
            text=f"{listed(found)}; {looked}",
            fulfilled=None if _alone(node) else bool(found),
            settings=settings,
        )
    ]
    causes += [
        Cause(subject="seed", text=f"{listed(one.addresses)} does not answer: {one.failure}")
        for one in given.contacts
        if one.peer is None and one.failure is not None
    ]
    if given.foreign:
        text = f"beacons of another network come from {listed(given.foreign)}"
        causes.append(Cause(subject="foreign", text=text))
    causes += [
        Cause(subject="refused", text=_refusal(node, one))
        for one in reversed(given.refused[-REFUSALS_SHOWN_MAX:])
    ]
    return causes


def _looked(given: Given) -> str:
    ways = []
    if "lan" in given.discovery:
        ways.append(f"cannot hear the LAN ({given.deaf})" if given.deaf else "hears the LAN")
    seeds = sum("seed" in contact.ways for contact in given.contacts)
    ways.append(f"{seeds} seeds are named" if seeds != 1 else "one seed is named")
    return ", ".join(ways)


def _connected(node: Node, given: Given) -> list[Cause]:
    linked = [known for known in node.directory.others() if known.connected]
    text = listed(_path(known, given.contact(known.node)) for known in linked)
    causes = [
        Cause(
            subject="connected",
            text=f"with {text}",
            fulfilled=None if _alone(node) else bool(linked),
        )
    ]
    for peer in sorted({one.peer for one in given.contacts if one.peer is not None}):
        contact = given.contact(peer)
        known = node.directory.find(peer)
        linked_now = known is not None and known.connected
        if contact is None or contact.failure is None or linked_now:
            continue
        text = f"{node.directory.name(peer)} cannot be reached: {_failure(contact)}"
        causes.append(Cause(subject="unreached", text=text))
    return causes


def _synchronised(node: Node) -> Cause:
    peers = names(node, node.replica.caught_up)
    linked = any(known.connected for known in node.directory.others())
    why = "the first exchange of ledgers is not complete" if linked else "there is no connection"
    return Cause(
        subject="synchronised",
        text=f"with {listed(peers)}: all they held is here; {len(node.replica.entries)} entries"
        if peers
        else f"with nobody: {why}",
        fulfilled=bool(peers) if linked else None,
    )


# Another node.


def _found_peer(given: Given, known: Known) -> list[Cause]:
    contact = given.contact(known.node)
    places = known.facts.addresses if known.facts is not None else ()
    where = contact.addresses if contact is not None else places
    if contact is None and not places:
        return [Cause(subject="found", text="no address of it is known", fulfilled=None)]
    text = f"by {_ways(contact)}, at {listed(where)}"
    return [Cause(subject="found", text=text, fulfilled=True)]


def _peer_refused(given: Given, known: Known) -> list[Cause]:
    refusal = given.refusal(known.node)
    if refusal is None or known.connected:
        return []
    text = f"{refusal.why} ({_times(refusal)}, at {refusal.where})"
    return [Cause(subject="refused", text=text, fulfilled=False)]


def _peer_connected(node: Node, given: Given, known: Known) -> Cause:
    contact = given.contact(known.node)
    if known.connected:
        text = f"with this node ({_way_of(known, contact)})"
        return Cause(subject="connected", text=text, fulfilled=True)
    present = node.directory.present()
    if known.node in present:
        near = [
            other
            for other in node.directory.others()
            if other.node in present and any(link.peer == known.node for link in other.neighbours)
        ]
        refs = tuple(ref for other in near for ref in own_entry(node, other.node, "links"))
        text = f"not with this node, but with {listed(other.name for other in near)}"
        return Cause(subject="connected", text=text, fulfilled=True, entries=refs)
    state = node.directory.state_of(known, present)
    text = f"with nobody that this node reaches ({state})"
    if contact is not None and contact.failure is not None:
        text += f"; {_failure(contact)}"
    return Cause(subject="connected", text=text, fulfilled=False)


def _peer_facts(node: Node, known: Known) -> Cause:
    refs = own_entry(node, known.node, "facts")
    if known.facts is None:
        return Cause(subject="facts", text="it has said nothing about itself", fulfilled=False)
    software = known.facts.software or "unknown software"
    text = f"it says who it is: {known.facts.node_name}, {software}"
    return Cause(subject="facts", text=text, fulfilled=True, entries=refs)


# Any node: its way from the plan to k3s.


def _roles(node: Node, known: Known) -> list[Cause]:
    plan = node.standing.plan
    if plan is None:
        phase = node.genesis.state.phase
        text = f"no plan is decided: genesis is {phase} (`meshd explain genesis`)"
        return [Cause(subject="role", text=text, fulfilled=False)]
    wish = known.facts.role_wish if known.facts is not None else "auto"
    seat = seat_in(plan, known.node, wish)
    record, refs = record_of(node, "claim")
    text = f"{seat} in generation {plan.generation}"
    causes = [Cause(subject="role", text=text, fulfilled=True, entries=refs, record=record)]
    if seat == "none":
        return causes
    if seat == "worker" and not node.standing.formed:
        text = "workers join when the control plane is complete (DONE), which it is not"
        return [*causes, Cause(subject="formed", text=text, fulfilled=False)]
    causes += [_secret(node, known, name) for name in _SECRETS.get(seat, ())]
    return [*causes, _k3s(node, known)]


def _secret(node: Node, known: Known, name: str) -> Cause:
    refs = entries(node, f"sealed/{known.node}/{name}")
    if not refs:
        text = f"no server has handed over the {name}"
        return Cause(subject="secrets", text=text, fulfilled=False)
    text = f"the {name} was handed over, sealed, by {listed(ref.author for ref in refs)}"
    return Cause(subject="secrets", text=text, fulfilled=True, entries=refs)


def _k3s(node: Node, known: Known) -> Cause:
    record = known.k3s
    refs = own_entry(node, known.node, "k3s")
    if record is None:
        return Cause(subject="k3s", text="it has said nothing about k3s", fulfilled=False)
    heard = known.node in node.directory.present()
    text = f"{'' if heard else 'it last said: '}{record.state}"
    text += f", {record.version}" if record.version else ""
    if known.node == node.me and node.order.join:
        text += f"; servers to join: {listed(node.order.join)}"
    if record.waiting_for is not None:
        text += f"; it says: {record.waiting_for}"
    return Cause(subject="k3s", text=text, fulfilled=record.state == "ready", entries=refs)


# Words.


def _ways(contact: Contact | None) -> str:
    if contact is None:
        return "the ledger"
    return ", ".join(contact.ways) or "its own call"


def _path(known: Known, contact: Contact | None) -> str:
    return f"{known.name} ({_way_of(known, contact)})"


def _way_of(known: Known, contact: Contact | None) -> str:
    words: list[str] = [known.path or "direct"]
    if contact is not None and contact.dialled is not None:
        words.append("dialled from here" if contact.dialled else "it dialled this node")
    return ", ".join(words)


def _failure(contact: Contact) -> str:
    count = "the last dial" if contact.failures == 1 else f"{contact.failures} dials in a row"
    return f"{count} failed: {contact.failure}"


def _refusal(node: Node, refusal: Refused) -> str:
    name = node.directory.name(refusal.peer)
    return f"{refusal.where} ({name}): {refusal.why} ({_times(refusal)})"


def _times(refusal: Refused) -> str:
    times = "once" if refusal.count == 1 else f"{refusal.count} times"
    return f"{times}, last {refusal.ago_s:.0f} s ago"


def _changes(node: Node, given: Given, known: Known, missing: Cause | None) -> tuple[str, ...]:
    if missing is None:
        return ()
    settings = given.stated("p2p.network_token")
    token = f"{settings[0].key} at {settings[0].place}" if settings else "the token"
    plan = node.standing.plan
    first = node.directory.name(plan.initialiser) if plan is not None else "a server"
    who = f"a machine with the same token ({token})" if known.node == node.me else known.name
    near = f"{who} is on, and its network reaches this one"
    if known.node == node.me and given.foreign:
        near += "; or those of the other network get this token (`meshd token inspect` compares)"
    genesis = "genesis goes on: `meshd explain genesis` says what it waits for"
    ledger = "the exchange of ledgers completes"
    remedies = {
        "found": near,
        "connected": near,
        "refused": f"{known.name} gets the same token as this node ({token})",
        "synchronised": ledger,
        "facts": ledger,
        "role": genesis,
        "formed": genesis,
        "secrets": f"{first}, or another server that holds it, can be reached",
        "k3s": "k3s gets what it waits for; its log is k3s/k3s.log in the state directory there",
    }
    return (remedies[missing.subject],)
