"""At which addresses others reach this node, kept up to date."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

import trio

from meshd.config.multiaddress import HostKind, TcpAddress
from meshd.mesh.interfaces import (
    Interface,
    IpAddress,
    news_socket,
    read_interfaces,
    usable_interfaces,
    wait_for_change,
)

SETTLE_S = 0.2
"""Interfaces change in bursts (link, then address, then route): look once a burst is over."""


class Whereabouts:
    """This node's listen addresses.

    Args:
        interface: the only one to use, or None for all that lead to other machines.
        not_ours: IP addresses to leave out.
    """

    def __init__(self, *, interface: str | None, not_ours: Sequence[str]) -> None:
        self._interface = interface
        self._not_ours = frozenset(ip_address(text) for text in not_ours)
        self._bound: list[tuple[str, int]] = []
        self.interfaces: tuple[Interface, ...] = ()
        self.published: tuple[str, ...] = ()  # Multiaddrs.
        self._answered: tuple[str, ...] = ()
        self._changed = trio.Condition()

    def listen(self, bound: Sequence[tuple[str, int]]) -> None:
        """Say which sockets exist, as (IP address, port)."""
        self._bound = list(bound)
        self._read()

    @property
    def port(self) -> int:
        """The TCP port for addresses that are guessed, such as a link-local one."""
        return self._bound[0][1]

    def publish(self) -> tuple[str, ...]:
        """Return the multiaddrs now; `changed` waits for others."""
        self._answered = self.published
        return self.published

    async def changed(self) -> tuple[str, ...]:
        """Wait until the addresses differ from the last answer, and return them."""
        async with self._changed:
            while self.published == self._answered:
                await self._changed.wait()
            return self.publish()

    async def wait_interfaces(self, known: tuple[Interface, ...]) -> tuple[Interface, ...]:
        """Wait until the usable interfaces differ from `known`, and return them."""
        async with self._changed:
            while self.interfaces == known:
                await self._changed.wait()
            return self.interfaces

    async def follow(self) -> None:
        """Read the addresses again whenever the kernel says that some changed."""
        with news_socket() as sock:
            while True:
                await wait_for_change(sock)
                await trio.sleep(SETTLE_S)
                self._read()
                async with self._changed:
                    self._changed.notify_all()

    def _read(self) -> None:
        everything = read_interfaces()
        self.interfaces = usable_interfaces(everything, only=self._interface)
        if self._bound and all(ip_address(host).is_loopback for host, _ in self._bound):
            self.interfaces = tuple(each for each in everything if each.loopback)
        reachable = [
            address
            for interface in self.interfaces
            for address in interface.addresses
            if address not in self._not_ours and not _link_local_v6(address)
        ]
        self.published = tuple(listen_addresses(self._bound, reachable))


def listen_addresses(bound: Sequence[tuple[str, int]], reachable: Sequence[IpAddress]) -> list[str]:
    """Return the multiaddrs at which sockets bound to `bound` are reached, without duplicates.

    A wildcard stands for every reachable address of its family; any other address for itself.
    """
    found: dict[str, None] = {}
    for host, port in bound:
        address = ip_address(host)
        if address.is_unspecified:
            of_family = [each for each in reachable if each.version == address.version]
        else:
            of_family = [address]
        for each in of_family:
            found[str(tcp_address(each, port))] = None
    return list(found)


def tcp_address(address: IpAddress, port: int) -> TcpAddress:
    """Return `address` with a TCP port."""
    kind: HostKind = "ip6" if isinstance(address, IPv6Address) else "ip4"
    return TcpAddress(kind=kind, host=str(address), port=port)


def _link_local_v6(address: IpAddress) -> bool:
    return isinstance(address, IPv6Address) and address.is_link_local
