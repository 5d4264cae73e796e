"""The LAN beacon's sockets: multicast to every usable interface, over IPv4 and IPv6.

Each node says where it is, every 2 s while things change, slowing down to every 30 s; a stranger
is answered at once, to its address alone. When interfaces or addresses change, all sockets are
opened anew, which joins the groups again.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

import trio

from ledger import NodeId
from meshd.config.multiaddress import TcpAddress
from meshd.mesh.beacon import MAGIC, Beacon, places_in, seal, unseal
from meshd.mesh.interfaces import Interface
from meshd.mesh.keys import NetworkKeys
from meshd.mesh.whereabouts import Whereabouts

GROUP_IPV4 = "239.255.77.72"  # Of the local scope, never routed (RFC 2365, section 6.1).
GROUP_IPV6 = "ff12::6d65:7368"  # Transient, link-local scope (RFC 4291, section 2.7).
FAST_INTERVAL_S = 2.0
SLOW_INTERVAL_S = 30.0
FAST_BEACONS = 5
"""So many come quickly after a change; then each pause is twice the one before."""
ANSWER_INTERVAL_S = 1.0
ANSWERED_MAX = 1024
REOPEN_AFTER_S = 10.0
DEAF_S = 0.1

_MREQN = struct.Struct("=4s4si")


class LanBeacon:
    """Finds nodes of the same token on the same LAN.

    Args:
        own: this node.
        keys: the first seals, all open.
        port: UDP.
        whereabouts: what is published, and on which interfaces.
        heard: told of each node heard of, with places to dial; True if it was unknown.
        linked: whether a node is connected already.
        alone: whether none is.
        foreign: told of the IP addresses of other networks' beacons.
    """

    def __init__(
        self,
        *,
        own: NodeId,
        keys: Sequence[NetworkKeys],
        port: int,
        whereabouts: Whereabouts,
        heard: Callable[[NodeId, list[TcpAddress]], bool],
        linked: Callable[[NodeId], bool],
        alone: Callable[[], bool],
        foreign: Callable[[str], None],
    ) -> None:
        self._own = own
        self._keys = keys
        self._port = port
        self._whereabouts = whereabouts
        self._heard = heard
        self._linked = linked
        self._alone = alone
        self._foreign = foreign
        self._sent = 0  # Since the last change.
        self._answered: dict[str, float] = {}
        self._bell = trio.Event()
        self._deaf: dict[socket.AddressFamily, str] = {}

    @property
    def trouble(self) -> str | None:
        """Why beacons cannot be heard over IPv4 or IPv6, if so."""
        return "; ".join(self._deaf.values()) or None

    def hasten(self) -> None:
        """Something changed: beacon often, from now."""
        self._sent = 0
        self._bell.set()

    async def run(self) -> None:
        """Send, hear and answer beacons until cancelled."""
        before: tuple[Interface, ...] | None = None
        while True:
            interfaces = self._whereabouts.interfaces
            if interfaces != before:
                self.hasten()
            before = interfaces
            with ExitStack() as stack:
                sockets = [
                    sock
                    for family in (socket.AF_INET, socket.AF_INET6)
                    if (sock := await self._open(family, interfaces)) is not None
                ]
                for sock in sockets:
                    stack.enter_context(sock)
                patience = float("inf") if sockets and not self._deaf else REOPEN_AFTER_S
                with trio.move_on_after(patience):
                    async with trio.open_nursery() as nursery:
                        for sock in sockets:
                            nursery.start_soon(self._receive_forever, sock)
                        nursery.start_soon(self._send_forever, sockets, interfaces)
                        await self._whereabouts.wait_interfaces(interfaces)
                        nursery.cancel_scope.cancel()

    async def _open(
        self, family: socket.AddressFamily, interfaces: Sequence[Interface]
    ) -> trio.socket.SocketType | None:
        try:
            sock = trio.socket.socket(family, socket.SOCK_DGRAM)
        except OSError:
            return None  # No such family in this kernel.
        try:
            # Several nodes may share a machine; each gets a copy of every multicast.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", self._port))  # noqa: S104
        except trio.Cancelled:
            sock.close()
            raise
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRNOTAVAIL:  # IPv6 is switched off on this machine.
                name = "IPv6" if family == socket.AF_INET6 else "IPv4"
                self._deaf[family] = f"UDP port {self._port} ({name}): {error.strerror}"
            return None
        self._deaf.pop(family, None)
        for interface in interfaces:
            with suppress(OSError):  # It has no address of this family, or is going away.
                _join(sock, interface.index)
        return sock

    async def _receive_forever(self, sock: trio.socket.SocketType) -> None:
        while True:
            try:
                datagram, source = await sock.recvfrom(2048)
            except OSError:
                await trio.sleep(DEAF_S)  # An ICMP error for an earlier answer, for example.
                continue
            host = str(source[0])
            if len(source) == 4 and source[3] and "%" not in host:
                with suppress(OSError):
                    host = f"{host}%{socket.if_indextoname(source[3])}"
            beacon = unseal(datagram, self._keys)
            if beacon is None:
                if datagram.startswith(MAGIC):
                    self._foreign(host)
            elif beacon.node != self._own:
                await self._take(beacon, host, sock, source)

    async def _take(
        self, beacon: Beacon, host: str, sock: trio.socket.SocketType, source: tuple[object, ...]
    ) -> None:
        node = NodeId(beacon.node)
        if self._linked(node):
            return
        is_new = self._heard(node, places_in(beacon, host))
        now = trio.current_time()
        recent = now - self._answered.get(beacon.node, float("-inf")) < ANSWER_INTERVAL_S
        if beacon.answer or recent or not (is_new or beacon.seeking):
            return
        self._answered[beacon.node] = now
        while len(self._answered) > ANSWERED_MAX:
            del self._answered[next(iter(self._answered))]
        with suppress(OSError):
            await sock.sendto(self._datagram(answer=True), source)

    def _datagram(self, *, answer: bool) -> bytes:
        beacon = Beacon(
            node=self._own,
            port=self._whereabouts.port,
            addresses=self._whereabouts.published,
            answer=answer,
            seeking=self._alone(),
        )
        return seal(beacon, self._keys[0])

    async def _send_forever(
        self, sockets: Sequence[trio.socket.SocketType], interfaces: Sequence[Interface]
    ) -> None:
        while True:
            self._bell = trio.Event()
            pause = beacon_pause(self._sent, alone=self._alone())
            # Once all is quiet the two families take turns: either reaches every neighbour.
            calm = pause > FAST_INTERVAL_S and len(sockets) == 2
            now = [sockets[self._sent % 2]] if calm else sockets
            self._sent += 1
            for sock in now:
                for interface in interfaces:
                    with suppress(OSError):  # No route for this family, or a firewall.
                        await _send(sock, self._datagram(answer=False), self._port, interface)
            with trio.move_on_after(pause):
                await self._bell.wait()


def beacon_pause(sent: int, *, alone: bool) -> float:
    """Return how many seconds to wait after a beacon; `sent` came before it since a change."""
    if alone:
        return FAST_INTERVAL_S
    doublings = max(0, sent - FAST_BEACONS)
    return min(FAST_INTERVAL_S * 2.0 ** min(doublings, 10), SLOW_INTERVAL_S)


def _join(sock: trio.socket.SocketType, index: int) -> None:
    if sock.family == socket.AF_INET:
        request = _MREQN.pack(socket.inet_aton(GROUP_IPV4), bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    else:
        request = socket.inet_pton(socket.AF_INET6, GROUP_IPV6) + struct.pack("=i", index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)


async def _send(
    sock: trio.socket.SocketType, datagram: bytes, port: int, interface: Interface
) -> None:
    if sock.family == socket.AF_INET:
        request = _MREQN.pack(bytes(4), bytes(4), interface.index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
        await sock.sendto(datagram, (GROUP_IPV4, port))
    else:
        await sock.sendto(datagram, (GROUP_IPV6, port, 0, interface.index))
