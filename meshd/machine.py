"""What this machine can say about itself: its node address, memory and cores.

The node address is what k3s and etcd are reached at. Once k3s has started with one it must not
change (etcd refuses a member whose address moved), so it is frozen by whoever starts k3s.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ifaddr

IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# Interfaces that containers, pods or meshd itself make; their addresses are no node's.
_NOT_OURS = ("lo", "docker", "cni", "flannel", "veth", "br-", "virbr", "kube-", "meshd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network interface and its addresses with their prefix lengths."""

    name: str
    addresses: tuple[IPInterface, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAddress:
    """The address that k3s here is reached at, and the interface that has it."""

    ip: str
    interface: str


def read_interfaces() -> tuple[Interface, ...]:
    """Return the interfaces that a node address may be taken from, in the kernel's order."""
    found = []
    for adapter in ifaddr.get_adapters():
        if adapter.nice_name.startswith(_NOT_OURS):
            continue
        addresses = []
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            address = ipaddress.ip_interface(f"{text.partition('%')[0]}/{ip.network_prefix}")
            if not (address.is_link_local or address.is_loopback or address.is_multicast):
                addresses.append(address)
        found.append(Interface(name=adapter.nice_name, addresses=tuple(addresses)))
    return tuple(found)


def choose_node_address(
    interfaces: Iterable[Interface],
    *,
    wanted: str | None,
    vip: str | None,
    default_route: str | None,
) -> NodeAddress | None:
    """Return the address that k3s shall use, or None if there is none yet.

    In this order: the interface the operator named; the one on the VIP's subnet; the one that
    the default route uses; the first. Never the VIP itself.

    Args:
        interfaces: candidates, as `read_interfaces` returns them.
        wanted: `p2p.meshd.interface`.
        vip: `kubevip.eip`.
        default_route: name of the interface that holds the default route.
    """
    vip_address = ipaddress.ip_address(vip) if vip else None
    usable = [
        (interface.name, address)
        for interface in interfaces
        for address in interface.addresses
        if address.ip != vip_address
    ]
    if wanted is not None:
        usable = [(name, address) for name, address in usable if name == wanted]

    def preference(item: tuple[str, IPInterface]) -> tuple[bool, bool, bool]:
        name, address = item
        on_vip_subnet = vip_address is not None and vip_address in address.network
        return (not on_vip_subnet, name != default_route, address.version == 6)

    best = min(usable, key=preference, default=None)  # Stable: the kernel's order decides ties.
    return NodeAddress(ip=str(best[1].ip), interface=best[0]) if best else None


def address_problem(
    interfaces: Sequence[Interface], names: Sequence[str], *, wanted: str | None, vip: str | None
) -> str | None:
    """Return why this machine's address does not do, as a clause; None if it does.

    Args:
        interfaces: as `read_interfaces` returns them.
        names: of all interfaces that could have an address.
        wanted: `p2p.meshd.interface`.
        vip: `kubevip.eip`.
    """
    if choose_node_address(interfaces, wanted=wanted, vip=vip, default_route=None) is None:
        there = ", ".join(names) or "none"
        if wanted is None:
            return f"no interface has an address (there are: {there})"
        if wanted not in names:
            return f"there is no interface {wanted} (p2p.meshd.interface; there are: {there})"
        return f"its interface {wanted} (p2p.meshd.interface) has no address"
    if wanted is not None or vip is None or ":" in vip:
        # An IPv6 address of DHCP has no prefix, so its subnet cannot be read from it (RFC 8415).
        return None
    networks = [address.network for interface in interfaces for address in interface.addresses]
    wide = [network for network in networks if network.prefixlen < network.max_prefixlen]
    if any(ipaddress.ip_address(vip) in network for network in wide):
        return None
    shown = ", ".join(sorted(map(str, wide))) or "none"
    return f"none of its subnets ({shown}) holds the virtual address {vip}"


def default_route_interface(routes: str) -> str | None:
    """Return the interface of the IPv4 default route in the text of /proc/net/route, if any."""
    rows = [line.split() for line in routes.splitlines()[1:]]
    defaults = [
        (int(row[6]), row[0]) for row in rows if len(row) > 7 and row[1] == row[7] == "0" * 8
    ]
    return min(defaults)[1] if defaults else None


def default_route_interface_v6(routes: str) -> str | None:
    """Return the interface of the IPv6 default route in the text of /proc/net/ipv6_route, if any.

    Columns: destination, its prefix length, source, its prefix length, next hop, metric, two
    counters, flags, interface (net/ipv6/route.c, `rt6_info_route`).
    """
    rows = [line.split() for line in routes.splitlines()]
    defaults = [
        (int(row[5], 16), row[9])
        for row in rows
        if len(row) > 9 and row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo"
    ]
    return min(defaults)[1] if defaults else None


def read_node_address(*, wanted: str | None, vip: str | None) -> NodeAddress | None:
    """Return `choose_node_address` for this machine as it is now."""
    route = default_route_interface(_routes("/proc/net/route"))
    route = route or default_route_interface_v6(_routes("/proc/net/ipv6_route"))
    return choose_node_address(read_interfaces(), wanted=wanted, vip=vip, default_route=route)


def read_node_ip(*, wanted: str | None, vip: str | None) -> str | None:
    """Return the address alone."""
    found = read_node_address(wanted=wanted, vip=vip)
    return None if found is None else found.ip


def read_address_problem(*, wanted: str | None, vip: str | None) -> str | None:
    """Return `address_problem` for this machine as it is now."""
    names = [name for _, name in socket.if_nameindex() if not name.startswith(_NOT_OURS)]
    return address_problem(read_interfaces(), names, wanted=wanted, vip=vip)


def _routes(table: str) -> str:
    try:
        return Path(table).read_text(encoding="ascii")
    except OSError:
        return ""  # This kernel does not know the family.


def memory_mib() -> int:
    """Return the physical memory in MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)


def cpu_count() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0))


def ip_of_multiaddrs(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the IP addresses in `addresses` (multiaddrs), in order, without repetition."""
    ips = [part[2] for part in (a.split("/") for a in addresses) if part[1:2] in (["ip4"], ["ip6"])]
    return tuple(dict.fromkeys(ips))
