"""Which virtual address there is, who holds it, how that is known, and what would move it."""

from __future__ import annotations

from ledger import NodeId
from meshd.explain._evidence import listed, own_entry, record_of
from meshd.explain._given import Given
from meshd.explain._model import Cause, Explanation, Subject
from meshd.node import Node
from meshd.status import living_servers, name_of_node, vip_witness

_KEYS = ("kubevip.eip", "kubevip.enable", "kubevip.interface")


def explain_vip(node: Node, given: Given, whose: NodeId) -> Explanation:
    """Return what is known of the virtual address, and whether another node could hold it."""
    plan = node.standing.plan
    address = plan.vip if plan is not None else node.vip
    causes = [_configured(node, given), *_others(node)]
    witness = vip_witness(node, node.directory.present())
    if address is not None:
        causes += [*_planned(node), _after_done(node)]
        causes += [_holder(node, witness)] if node.standing.formed else []
    causes += _doubled(node)
    if whose != node.me:
        causes.append(_could_hold(node, whose))
    return Explanation(
        topic="vip",
        node=Subject(id=whose, name=node.directory.name(whose)),
        answer=_answer(node, address, witness),
        causes=tuple(causes),
        waiting_for=_waiting(node, address, witness),
        would_change_if=_changes(node, given, address, witness),
    )


def _answer(node: Node, address: str | None, witness: tuple[str, NodeId] | None) -> str:
    if address is None:
        return "there is no virtual address"
    if witness is None:
        return f"the virtual address {address} is held by nobody yet"
    return f"the virtual address {address} is held by {name_of_node(node, witness[0])}"


def _waiting(node: Node, address: str | None, witness: tuple[str, NodeId] | None) -> str | None:
    if address is None or witness is not None:
        return None
    if not node.standing.formed:
        return node.waiting_for or "the cluster to form"
    return "a server whose API answers, and kube-vip on it to take the lease"


def _configured(node: Node, given: Given) -> Cause:
    settings = given.stated(*_KEYS)
    if node.vip is not None:
        return Cause(subject="configured", text=f"{node.vip} on this node", settings=settings)
    why = (
        "kubevip.enable is false"
        if any(one.key == "kubevip.eip" for one in settings)
        else "kubevip.eip stands in none of the files that this node read"
    )
    return Cause(subject="configured", text=f"none on this node: {why}", settings=settings)


def _others(node: Node) -> list[Cause]:
    return [
        Cause(
            subject="differs",
            text=f"{known.name} is set up with {known.facts.vip or 'none'}",
            entries=own_entry(node, known.node, "facts"),
        )
        for known in node.directory.others()
        if known.facts is not None
        and known.facts.role_wish in ("auto", "control-plane")
        and known.facts.vip != node.vip
    ]


def _doubled(node: Node) -> list[Cause]:
    """Say so if two clusters that came of one token both have the address."""
    return [
        Cause(
            subject="problem",
            text=f"{item.code}: {item.message}; fix: {item.fix}",
            fulfilled=False,
        )
        for item in node.health
        if item.code == "MESH-4030"
    ]


def _planned(node: Node) -> tuple[Cause, ...]:
    plan = node.standing.plan
    if plan is None:
        text = "no plan is decided; it will carry the address of the node that proposes it"
        return (Cause(subject="plan", text=text, fulfilled=False),)
    record, entries = record_of(node, "claim")
    text = f"the decided plan says {plan.vip}"
    if plan.vip_interface:
        text += f", on {plan.vip_interface} of each server (kube-vip as a DaemonSet)"
    elif plan.vip is not None:
        text += (
            ", by a static pod of kube-vip on each server: they differ in the interface for it, "
            "or kubevip.static_pod is set"
        )
    if plan.vip != node.vip:
        text += ", and that counts, not this node's setting"
    return (Cause(subject="plan", text=text, fulfilled=True, entries=entries, record=record),)


def _after_done(node: Node) -> Cause:
    if not node.standing.formed:
        text = "kube-vip starts when the cluster has formed (DONE), which it has not"
        return Cause(subject="formed", text=text, fulfilled=False)
    record, entries = record_of(node, "done")
    text = "the cluster has formed (DONE), so kube-vip runs on the servers that have a kubevip.eip"
    return Cause(subject="formed", text=text, fulfilled=True, entries=entries, record=record)


def _holder(node: Node, witness: tuple[str, NodeId] | None) -> Cause:
    if witness is None:
        servers = listed(known.name for known in living_servers(node, node.directory.present()))
        text = f"no server says that anyone holds kube-vip's lease (servers that answer: {servers})"
        return Cause(subject="holder", text=text, fulfilled=False)
    holder, by = name_of_node(node, witness[0]), node.directory.name(witness[1])
    own = witness[1] == node.me
    text = f"{holder} holds kube-vip's lease, as {'k3s on this node' if own else by} says"
    entries = () if own else own_entry(node, witness[1], "k3s")
    return Cause(subject="holder", text=text, fulfilled=True, entries=entries)


def _could_hold(node: Node, whose: NodeId) -> Cause:
    plan, name = node.standing.plan, node.directory.name(whose)
    if plan is None:
        return Cause(subject="can hold", text=f"{name} can hold it if it gets a seat")
    if plan.seat_of(whose) is None:
        return Cause(subject="can hold", text=f"{name} cannot: it has no seat")
    serving = [known.node for known in living_servers(node, node.directory.present())]
    state = "its API answers" if whose in serving else "its API does not answer now"
    entries = own_entry(node, whose, "k3s")
    return Cause(subject="can hold", text=f"{name} can: it has a seat; {state}", entries=entries)


def _changes(
    node: Node, given: Given, address: str | None, witness: tuple[str, NodeId] | None
) -> tuple[str, ...]:
    if address is None:
        if node.standing.plan is None:
            return ("kubevip.eip is set on all machines, and meshd started again before CLAIM",)
        return ("all machines start afresh with a new token and kubevip.eip: the plan has none",)
    if witness is None:
        if node.standing.formed:
            return ("kube-vip on a server takes the lease: its log there says why it does not",)
        return ("the cluster forms: `meshd explain genesis` says what that waits for",)
    holder = name_of_node(node, witness[0])
    able = [known.name for known in living_servers(node, node.directory.present())]
    heirs = listed(name for name in able if name != holder)
    silent = f"{holder} does not renew its lease for {given.vip_lease_s} s"
    return (
        f"{silent}: then the first to ask takes it (of {heirs})",
        f"k3s on {holder} is stopped, or its API no longer answers there",
    )
