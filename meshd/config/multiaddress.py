"""Multiaddrs as far as meshd uses them: a host, a TCP port, and perhaps whose address it is.

Only TCP is spoken, so `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT[/p2p/ID]` is the whole grammar here;
the mesh hands the text to libp2p. (multiformats/multiaddr, README.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from ledger import NodeId, public_key_of

HostKind = Literal["ip4", "ip6", "dns", "dns4", "dns6"]
HOST_KINDS: tuple[HostKind, ...] = ("ip4", "ip6", "dns", "dns4", "dns6")

_LABEL = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpAddress:
    """One place where a node may be reached."""

    kind: HostKind
    host: str  # Canonical; names in lower case.
    port: int
    node: NodeId | None = None

    def __str__(self) -> str:
        suffix = "" if self.node is None else f"/p2p/{self.node}"
        return f"/{self.kind}/{self.host}/tcp/{self.port}{suffix}"


def parse_tcp_address(text: str) -> TcpAddress:
    """Return the address that `text` says.

    Raises:
        ValueError: with a sentence that says what is wrong with it.
    """
    parts = text.split("/")
    if len(parts) not in {5, 7} or parts[0] or parts[3] != "tcp":
        raise ValueError("not of the form /ip4/ADDRESS/tcp/PORT[/p2p/NODE-ID]")
    kind = next((known for known in HOST_KINDS if known == parts[1]), None)
    if kind is None:
        raise ValueError(f"{parts[1]!r} is none of {', '.join(HOST_KINDS)}")
    if not (parts[4].isascii() and parts[4].isdigit() and int(parts[4]) <= 65535):
        raise ValueError(f"{parts[4]!r} is not a TCP port")
    return TcpAddress(
        kind=kind, host=_host(kind, parts[2]), port=int(parts[4]), node=_node(parts[5:])
    )


def _host(kind: HostKind, text: str) -> str:
    try:
        if kind == "ip4":
            return str(IPv4Address(text))
        if kind == "ip6":
            return str(IPv6Address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an address of kind {kind}") from None
    name = text.lower().rstrip(".")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not a host name")
    return name


def _node(parts: list[str]) -> NodeId | None:
    if not parts:
        return None
    if parts[0] != "p2p":
        raise ValueError(f"{parts[0]!r} stands where only 'p2p' may")
    node = NodeId(parts[1])
    public_key_of(node)
    return node
