"""The TCP sockets: bound so that a taken port is noticed, and told to notice a dead peer.

libp2p's own listener sets SO_REUSEPORT, with which a second daemon on the same port starts without
an error and the kernel deals connections out to both (transport/tcp/tcp.py, `_set_reuse_flags`).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from ipaddress import ip_address

import trio

from meshd.config.multiaddress import TcpAddress, parse_tcp_address
from meshd.errors import MeshdError
from meshd.listeners import port_holder

KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_COUNT = 3
USER_TIMEOUT_MS = 10_000
BACKLOG = 128


def tune(sock: trio.socket.SocketType) -> None:
    """Have the kernel end a connection whose packets nobody acknowledges (tcp(7)).

    Nothing of this sends a packet while heartbeats flow.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


async def open_listeners(addresses: Sequence[str]) -> list[trio.SocketListener]:
    """Bind every address (multiaddrs with an IP address) and listen.

    An IPv6 wildcard on a machine without IPv6 is left out if another address can be bound.

    Raises:
        MeshdError: an address is not understood, taken, or not this machine's.
    """
    listeners: list[trio.SocketListener] = []
    skipped: MeshdError | None = None
    try:
        for text in addresses:
            address = _parse(text)
            try:
                listeners.append(await _listen(address))
            except OSError as error:
                skipped = _explain(error, address)
                if not _may_be_skipped(error, address):
                    raise skipped from error
        if not listeners:
            raise skipped or MeshdError(
                "MESH-3003",
                "there is no address to listen on",
                fix="name one at p2p.meshd.listen, or remove the key",
            )
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


def _parse(text: str) -> TcpAddress:
    try:
        address = parse_tcp_address(text)
        if address.kind not in {"ip4", "ip6"}:
            raise ValueError("to listen, an IP address is needed, not a name")
    except ValueError as error:
        raise MeshdError(
            "MESH-3003",
            f"{text!r} is no address to listen on",
            cause=str(error),
            fix="write p2p.meshd.listen as in /ip4/0.0.0.0/tcp/7946",
        ) from error
    return address


async def _listen(address: TcpAddress) -> trio.SocketListener:
    family = socket.AF_INET6 if address.kind == "ip6" else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        # On Linux this skips TIME_WAIT but never admits a second listener (socket(7)).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        await sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return trio.SocketListener(sock)


def _may_be_skipped(error: OSError, address: TcpAddress) -> bool:
    missing = error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
    return missing and address.kind == "ip6" and ip_address(address.host).is_unspecified


def _explain(error: OSError, address: TcpAddress) -> MeshdError:
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(address.port)
        return MeshdError(
            "MESH-3001",
            f"TCP port {address.port} is taken: cannot listen on {address}",
            cause=None if holder is None else f"{holder} listens on it",
            fix="stop that program, or choose another port at p2p.meshd.listen",
        )
    return MeshdError(
        "MESH-3002",
        f"cannot listen on {address}",
        cause=error.strerror,
        fix="name an address of this machine at p2p.meshd.listen, or remove the key",
    )
