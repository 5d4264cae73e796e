"""This machine's network interfaces and addresses, and news of their changes (rtnetlink(7)).

Only what other machines can reach counts: no loopback, no bridge or tunnel that a container runtime
made, no address that kube-vip put there (it moves, and is nobody's own).
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import trio

IpAddress = IPv4Address | IPv6Address

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/netlink.h
_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 20, 22
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_IFLA_IFNAME, _IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 3, 1, 2, 8
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING, _IFF_MULTICAST = 0x1, 0x8, 0x40, 0x1000
_IFA_F_TEMPORARY, _IFA_F_DADFAILED, _IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x01, 0x08, 0x20, 0x40
_UNFIT = _IFA_F_TEMPORARY | _IFA_F_DADFAILED | _IFA_F_DEPRECATED | _IFA_F_TENTATIVE
_NLMSGHDR = struct.Struct("=IHHII")
_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_RTATTR = struct.Struct("=HH")

_FOREIGN = re.compile(
    r"meshd|docker|br-[0-9a-f]{12}$|cni|flannel|veth|cali|cilium|lxc|virbr|kube-|nerdctl|podman"
    r"|vxlan\.|tunl|dummy|nodelocaldns"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One interface that is up, with its usable addresses, sorted."""

    index: int
    name: str
    loopback: bool
    multicast: bool
    addresses: tuple[IpAddress, ...]


def usable_interfaces(
    interfaces: Sequence[Interface], *, only: str | None
) -> tuple[Interface, ...]:
    """Return those by which other machines can be reached; `only` names a single one."""
    return tuple(
        interface
        for interface in interfaces
        if not interface.loopback
        and (interface.name == only if only else not _FOREIGN.match(interface.name))
    )


def read_interfaces() -> tuple[Interface, ...]:
    """Ask the kernel for all interfaces that are up and running, by index."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        links = list(_dump(sock, _RTM_GETLINK))
        addresses = list(_dump(sock, _RTM_GETADDR))
    return parse_interfaces(links, addresses)


def _dump(sock: socket.socket, request: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of the kernel's answers to a dump request."""
    body = struct.pack("=Bxxx", socket.AF_UNSPEC) + bytes(12)
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), request, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    sock.send(header + body)
    while True:
        for kind, answer in split_messages(sock.recv(65536)):
            if kind in {_NLMSG_DONE, _NLMSG_ERROR}:
                return
            yield kind, answer


def split_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of each netlink message in `data`."""
    while len(data) >= _NLMSGHDR.size:
        length, kind, _, _, _ = _NLMSGHDR.unpack_from(data)
        if length < _NLMSGHDR.size:
            return
        yield kind, data[_NLMSGHDR.size : length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _RTATTR.size:
        length, kind = _RTATTR.unpack_from(data)
        if length < _RTATTR.size:
            break
        found[kind & 0x3FFF] = data[_RTATTR.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def parse_interfaces(
    links: Sequence[tuple[int, bytes]], addresses: Sequence[tuple[int, bytes]]
) -> tuple[Interface, ...]:
    """Return the interfaces that dumps of links and addresses describe."""
    held: dict[int, list[tuple[IpAddress, int]]] = {}
    for kind, body in addresses:
        if kind == _RTM_NEWADDR and (found := _parse_address(body)) is not None:
            index, address, prefix = found
            held.setdefault(index, []).append((address, prefix))
    interfaces = []
    for kind, body in links:
        if kind != _RTM_NEWLINK:
            continue
        _, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
        name = _attributes(body[_IFINFOMSG.size :]).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
        if flags & _IFF_UP and flags & _IFF_RUNNING:
            interfaces.append(
                Interface(
                    index=index,
                    name=name,
                    loopback=bool(flags & _IFF_LOOPBACK),
                    multicast=bool(flags & _IFF_MULTICAST),
                    addresses=own_addresses(held.get(index, [])),
                )
            )
    return tuple(sorted(interfaces, key=lambda interface: interface.index))


def _parse_address(body: bytes) -> tuple[int, IpAddress, int] | None:
    _, prefix, flags, _, index = _IFADDRMSG.unpack_from(body)
    attributes = _attributes(body[_IFADDRMSG.size :])
    if _IFA_FLAGS in attributes:
        (flags,) = struct.unpack("=I", attributes[_IFA_FLAGS])
    # On a point-to-point link IFA_ADDRESS is the other end's.
    raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if raw is None or len(raw) not in {4, 16} or flags & _UNFIT:
        return None
    return index, ip_address(raw), prefix


def own_addresses(addresses: Sequence[tuple[IpAddress, int]]) -> tuple[IpAddress, ...]:
    """Return an interface's own addresses, IPv4 first.

    A host route (/32, /128) beside an address with a network is a virtual address: kube-vip adds
    the control plane's this way (pkg/vip/address.go), and it is elsewhere tomorrow.
    """
    networked = {address.version for address, prefix in addresses if prefix < address.max_prefixlen}
    own = {
        address
        for address, prefix in addresses
        if prefix < address.max_prefixlen or address.version not in networked
    }
    return tuple(sorted(own, key=lambda address: (address.version, address)))


async def wait_for_change(sock: trio.socket.SocketType) -> None:
    """Wait until the kernel reports a change of links or addresses on a `news_socket`."""
    with suppress(OSError):  # ENOBUFS: news was lost, so something changed.
        await sock.recv(65536)


def news_socket() -> trio.socket.SocketType:
    """Return a socket on which the kernel tells of changes of links and addresses."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    sock.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return trio.socket.from_stdlib_socket(sock)
