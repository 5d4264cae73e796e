"""The laboratory's network: one namespace with bridges, one namespace for each node.

A cut moves ports to a bridge of their own: both sides keep a working LAN, and no packet crosses.
Nothing outside the laboratory's own namespaces is touched.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from meshd.errors import MeshdError
from simulations.lab import cgroups, kernel
from simulations.lab.places import NAMESPACES, NodePlaces, Places
from simulations.lab.shell import run

_KILL_S = 10.0


def bridge(cut: int) -> str:
    """Return the name of the bridge of a side; 0 is the side where all begin."""
    return f"lan{cut}"


def make_lan(places: Places) -> None:
    """Make the namespace of the bridges, with the first bridge."""
    run(["ip", "netns", "add", places.lan])
    _batch(places.lan, ["link set lo up"])
    make_bridge(places, 0)
    # The kernel's look for duplicates would keep an IPv6 address back for a second.
    nodad = " nodad" if places.ipv6 else ""
    address = f"{places.gateway}/{places.prefix_length}"
    _batch(places.lan, [f"addr add {address} dev {bridge(0)}{nodad}"])


def make_bridge(places: Places, cut: int) -> None:
    """Make another side's bridge, unless it exists."""
    shown = json.loads(run(["ip", "-n", places.lan, "-j", "link", "show"]))
    if any(link["ifname"] == bridge(cut) for link in shown):
        return
    # Without a querier on the LAN, snooping would at last stop forwarding the beacon's group.
    _batch(
        places.lan,
        [
            f"link add {bridge(cut)} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
            f"link set {bridge(cut)} up",
        ],
    )


def make_node(node: NodePlaces) -> None:
    """Make a node's namespace and its port on the LAN, which is dead until `power_on`."""
    lan = node.places.lan
    run(["ip", "netns", "add", node.namespace])
    _batch(node.namespace, ["link set lo up"])
    _batch(
        lan,
        [
            f"link add {node.name} type veth peer name eth0 netns {node.namespace}",
            f"link set {node.name} master {bridge(0)}",
        ],
    )


def route_pods(node: NodePlaces) -> None:
    """Have the gateway pass packets for a node's pods on to the node."""
    _batch(node.places.lan, [f"route replace {node.pod_subnet} via {node.address}"])
    kind = "ipv6/conf/all/forwarding" if node.places.ipv6 else "ipv4/ip_forward"
    with kernel.inside_network(NAMESPACES / node.places.lan):
        Path("/proc/sys/net", kind).write_text("1", encoding="ascii")


def name_card(node: NodePlaces, name: str) -> None:
    """Have a machine that is off call its card on the LAN otherwise than eth0, from now on."""
    _batch(node.namespace, [f"link set {node.card} down", f"link set {node.card} name {name}"])
    node.card_file.write_text(name, encoding="ascii")


def power_on(node: NodePlaces) -> None:
    """Give the card on the LAN its own address and no other, and bring its port up."""
    places, card = node.places, node.card
    nodad = " nodad" if places.ipv6 else ""
    _batch(
        node.namespace,
        [
            # Down first: only an interface that comes up gets its link-local address.
            f"link set {card} down",
            f"addr flush dev {card}",
            f"link set {card} up",
            f"addr add {node.address}/{places.prefix_length} dev {card}{nodad}",
            f"route replace default via {places.gateway} dev {card}",
        ],
    )
    _batch(places.lan, [f"link set {node.name} up"])


def power_off(node: NodePlaces) -> None:
    """Kill every process of a node and take its port down.

    A machine without power answers nothing; the kernel of a namespace would go on to answer ARP
    for the addresses that the killed processes left on eth0.
    """
    kill_all(node.namespace)
    cgroups.remove(node.namespace, cgroups.of_this_host())
    _batch(node.places.lan, [f"link set {node.name} down"])


def unplug(node: NodePlaces, card: str = "eth0") -> None:
    """Pull a card's cable: the machine sees its carrier go."""
    _batch(node.places.lan, [f"link set {_port(node, card)} down"])


def plug(node: NodePlaces, card: str = "eth0") -> None:
    """Put a card's cable back."""
    _batch(node.places.lan, [f"link set {_port(node, card)} up"])


def add_card(node: NodePlaces, card: str, address: str) -> None:
    """Give a node another card, on a LAN of its own.

    Args:
        node: whose machine gets it.
        card: `eth1` to `eth9`; cards of one name share a LAN.
        address: with its prefix length.
    """
    lan, port = f"lan-{card}", _port(node, card)
    shown = json.loads(run(["ip", "-n", node.places.lan, "-j", "link", "show"]))
    if all(link["ifname"] != lan for link in shown):
        _batch(
            node.places.lan,
            [
                f"link add {lan} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
                f"link set {lan} up",
            ],
        )
    _batch(
        node.places.lan,
        [
            f"link add {port} type veth peer name {card} netns {node.namespace}",
            f"link set {port} master {lan}",
            f"link set {port} up",
        ],
    )
    _batch(node.namespace, [f"link set {card} up", f"addr add {address} dev {card}"])


def _port(node: NodePlaces, card: str) -> str:
    return node.name if card == "eth0" else f"{node.name}-{card}"


def move(nodes: Iterable[NodePlaces], cut: int) -> None:
    """Move nodes' ports to the bridge of a side."""
    for node in nodes:
        _batch(node.places.lan, [f"link set {node.name} master {bridge(cut)}"])


def addresses(node: NodePlaces) -> tuple[str, ...]:
    """Return the IP addresses on a node's card on the LAN."""
    shown = json.loads(run(["ip", "-n", node.namespace, "-j", "addr", "show", "dev", node.card]))
    return tuple(one["local"] for link in shown for one in link["addr_info"])


def change_address(node: NodePlaces, verb: Literal["add", "del"], address: str) -> None:
    """Add an address with its prefix length to a node's card on the LAN, or delete it."""
    _batch(node.namespace, [f"addr {verb} {address} dev {node.card}"])


def readdress(node: NodePlaces, address: str) -> None:
    """Give a running node another address on the LAN for good, as another DHCP server would."""
    places, card = node.places, node.card
    _batch(
        node.namespace,
        [
            f"addr del {node.address}/{places.prefix_length} dev {card}",
            f"addr add {address}/{places.prefix_length} dev {card}",
            f"route replace default via {places.gateway} dev {card}",
        ],
    )
    _batch(places.lan, [f"route replace {node.pod_subnet} via {address}"])


def received_bytes(node: NodePlaces) -> int:
    """Return how many bytes a node's card on the LAN has received, link headers included."""
    shown = json.loads(
        run(["ip", "-n", node.namespace, "-s", "-j", "link", "show", "dev", node.card])
    )
    return int(shown[0]["stats64"]["rx"]["bytes"])


def namespaces(places: Places) -> tuple[str, ...]:
    """Return the names of a laboratory's namespaces that exist, sorted."""
    if not NAMESPACES.is_dir():
        return ()
    names = (path.name for path in NAMESPACES.iterdir())
    return tuple(sorted(name for name in names if name.startswith(places.namespace_prefix)))


def delete_namespace(name: str) -> None:
    """Kill what runs in a namespace and delete it."""
    kill_all(name)
    cgroups.remove(name, cgroups.of_this_host())
    run(["ip", "netns", "del", name])


def holds(namespace: str, pid: int) -> bool:
    """Whether a process lives and is in a network namespace."""
    try:
        wanted = (NAMESPACES / namespace).stat()
    except FileNotFoundError:
        return False
    return _is_in(Path(f"/proc/{pid}"), wanted)


def pids(namespace: str) -> tuple[int, ...]:
    """Return the processes in a network namespace, and those of its control group, sorted.

    Pods have namespaces of their own, and are in the group.
    """
    try:
        wanted = (NAMESPACES / namespace).stat()
    except FileNotFoundError:
        return ()
    processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    inside = {int(entry.name) for entry in processes if _is_in(entry, wanted)}
    return tuple(sorted(inside | cgroups.processes(namespace, cgroups.of_this_host())))


def _is_in(process: Path, namespace: os.stat_result) -> bool:
    try:
        own = (process / "ns" / "net").stat()
    except OSError:
        return False  # It ended meanwhile, or is a zombie, which has no namespace any more.
    return (own.st_dev, own.st_ino) == (namespace.st_dev, namespace.st_ino)


def kill_all(namespace: str) -> None:
    """SIGKILL every process in a network namespace or its group, again until none is left.

    Raises:
        MeshdError: some are still there after 10 s.
    """
    deadline = time.monotonic() + _KILL_S
    while left := pids(namespace):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise MeshdError(
                "MESH-8009",
                f"processes in {namespace} cannot be killed: {', '.join(map(str, left))}",
                fix="they hang in the kernel; look at /proc/PID/stack",
            )
        time.sleep(0.01)


def _batch(namespace: str, commands: Sequence[str]) -> None:
    run(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")
