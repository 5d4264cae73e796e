"""The token: one line of text that makes machines one network.

It carries who they are (network id, secret, key epoch), what a holder may do (capability) and how
large the network is (bounds), so that every machine counts in the same way. EdgeVPN's tokens, as
Kairos uses them, are read in `meshd.config.edgevpn`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from ledger import node_id_of, public_key_of
from meshd.config import checksum
from meshd.config.edgevpn import read_edgevpn_token
from meshd.config.expiry import DATE_BYTES, decode_date, encode_date
from meshd.config.multiaddress import HOST_KINDS, TcpAddress, parse_tcp_address
from meshd.config.naming import WORDS, network_id_from
from meshd.config.schema import Capability, Network
from meshd.errors import ConfigError
from roles import VOTES_MAX, Bounds

PREFIX = "meshd"
CONTROL_PLANE_MAX = 7  # etcd's own advice (etcd.io, FAQ: "maximum cluster size").
NODES_MAX = 2 * VOTES_MAX - 1  # A majority of them still fits into a record.

_VERSION = 1
_VERSION_EXPIRING = 2
"""As version 1, with a date behind its fixed part.

Only a token that expires is of it: an older meshd refuses that one, and reads all others.
"""

_SECRET_BYTES = 32
_FIXED_BYTES = 46
_CAPABILITIES: tuple[Capability, ...] = ("vote", "join", "relay")
_BOUNDS: tuple[Literal["bounded", "open"], ...] = ("bounded", "open")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token's meaning. `bounds` is None where the token knows none (EdgeVPN's)."""

    network: Network
    bounds: Bounds | None
    kind: Literal["meshd", "edgevpn"] = "meshd"


def new_token(
    *,
    control_plane: int,
    nodes_max: int | None,
    seeds: Sequence[str],
    random_bytes: Callable[[int], bytes],
    expires: date | None = None,
) -> Token:
    """Return a token for a network that did not exist before.

    Args:
        control_plane: control-plane nodes wanted; odd, 1 to 7.
        nodes_max: machines that will ever get this token with the right to vote; None means
            2 x `control_plane` - 1, which is no choice for a control plane of 1.
        seeds: multiaddrs to ask first.
        random_bytes: the source of randomness, such as `os.urandom`.
        expires: the last day on which it lets a machine in, or None for ever.

    Raises:
        ConfigError: a size or a seed is refused; the message says why.
    """
    check_control_plane(control_plane)
    if nodes_max is None and control_plane == 1:
        raise ConfigError(
            "MESH-1011",
            "a control plane of 1 needs the number of machines",
            cause="with one voter enough, two machines that do not see each other would both start",
            fix="add --nodes N: the most machines that will ever get this token",
        )
    bounds = Bounds.bounded(control_plane=control_plane, nodes_max=nodes_max)
    check_nodes_max(bounds.nodes_max, control_plane)
    token = Token(
        network=Network(
            network_id=network_id_from(random_bytes(5)),
            epoch=0,
            secret=random_bytes(_SECRET_BYTES),
            capability="vote",
            seeds=tuple(_canonical_seed(seed) for seed in seeds),
            expires=expires,
        ),
        bounds=bounds,
    )
    encode_token(token)  # Too many seeds are refused now, not when it is printed.
    return token


def join_token(token: Token, expires: date | None = None) -> Token:
    """Return the token of the same network for machines that may join it but never vote.

    It expires after its own last day, or never; `token` has no part in that.
    """
    return replace(token, network=replace(token.network, capability="join", expires=expires))


def encode_token(token: Token) -> str:
    """Return the text of a meshd token: 95 characters, 4 more for a date, and more for seeds.

    Raises:
        ConfigError: it has too many seeds to be protected by its checksum.
    """
    network, bounds = token.network, token.bounds
    assert bounds is not None
    word, number = network.network_id.split("-")
    capability = _CAPABILITIES.index(network.capability)
    version = _VERSION if network.expires is None else _VERSION_EXPIRING
    content = b"".join(
        (
            bytes([version, WORDS.index(word)]),
            bytes.fromhex(number),
            network.epoch.to_bytes(2, "big"),
            network.secret,
            bytes([capability | _BOUNDS.index(bounds.bound) << 4, bounds.control_plane]),
            bounds.nodes_max.to_bytes(2, "big"),
            bounds.quorum.to_bytes(2, "big"),
            b"" if network.expires is None else encode_date(network.expires),
            *(_encode_seed(parse_tcp_address(seed)) for seed in network.seeds),
        )
    )
    try:
        return checksum.encode(PREFIX, content)
    except ValueError:
        raise ConfigError(
            "MESH-1013",
            f"{len(network.seeds)} seeds make the token longer than its checksum protects",
            fix="keep two or three seeds in the token; the others go to p2p.meshd.seeds",
        ) from None


def decode_token(text: str) -> Token:
    """Return the meaning of a meshd token; case and white space around it do not matter.

    Raises:
        ConfigError: mistyped (with the place, where it can be told), or of a later version.
    """
    text = text.strip()
    content = checksum.decode(PREFIX, text)
    if isinstance(content, checksum.Mistake):
        raise _mistyped(text, content)
    if content[0] not in (_VERSION, _VERSION_EXPIRING):
        raise ConfigError(
            "MESH-1012",
            f"the token is of version {content[0]}; this meshd reads versions {_VERSION} and "
            f"{_VERSION_EXPIRING}",
            fix="update meshd on this machine",
        )
    seeds_at = _FIXED_BYTES + (DATE_BYTES if content[0] == _VERSION_EXPIRING else 0)
    if len(content) < seeds_at or content[1] >= len(WORDS):
        raise _unreadable("it is too short, or its network's word is unknown")
    capability, bound = content[40] & 15, content[40] >> 4
    if capability >= len(_CAPABILITIES) or bound >= len(_BOUNDS):
        raise _unreadable("it grants something this version does not know")
    network = Network(
        network_id=network_id_from(content[1:6]),
        epoch=int.from_bytes(content[6:8], "big"),
        secret=content[8:40],
        capability=_CAPABILITIES[capability],
        seeds=_decode_seeds(content[seeds_at:]),
        expires=decode_date(dated) if (dated := content[_FIXED_BYTES:seeds_at]) else None,
    )
    bounds = Bounds(
        bound=_BOUNDS[bound],
        control_plane=content[41],
        nodes_max=int.from_bytes(content[42:44], "big"),
        quorum=int.from_bytes(content[44:46], "big"),
    )
    if not _is_safe(bounds):
        raise _unreadable(f"its sizes contradict one another: {bounds}")
    return Token(network=network, bounds=bounds)


def parse_token(text: str) -> Token:
    """Return the meaning of a token of either kind: meshd's own or EdgeVPN's.

    Raises:
        ConfigError: it is neither, or it is damaged.
    """
    text = text.strip()
    if text.lower().startswith(f"{PREFIX}1"):
        token = decode_token(text)
        hidden = (text, token.network.secret)
        return replace(token, network=replace(token.network, hidden=hidden))
    if text.lower().startswith("mesh"):
        raise ConfigError(
            "MESH-1002",
            f"the token is mistyped in its first characters: it must begin with {PREFIX}1",
            fix="compare it with the original; the digit 1 follows the name",
        )
    return Token(network=read_edgevpn_token(text), bounds=None, kind="edgevpn")


def check_control_plane(size: int) -> None:
    """Refuse a control-plane size that etcd gains nothing from.

    Raises:
        ConfigError: it is not 1, 3, 5 or 7.
    """
    if not 1 <= size <= CONTROL_PLANE_MAX:
        raise ConfigError(
            "MESH-1010",
            f"a control plane of {size} is out of range",
            fix=f"choose 1, 3, 5 or {CONTROL_PLANE_MAX}; 3 survives the loss of one machine",
        )
    if size % 2 == 0:
        raise ConfigError(
            "MESH-1010",
            f"a control plane of {size} survives no more losses than one of {size - 1}",
            cause=f"etcd needs {size // 2 + 1} of {size} members, so one more can fail it",
            fix=f"choose {size - 1} or {size + 1}",
        )


def check_nodes_max(nodes_max: int, control_plane: int) -> None:
    """Refuse a number of voters that cannot fill the control plane, or can keep no record.

    Raises:
        ConfigError: it is below `control_plane` or above 399.
    """
    if nodes_max > NODES_MAX:
        raise ConfigError(
            "MESH-1017",
            f"{nodes_max} machines that may vote are too many",
            cause="a decision carries the signatures of more than half of them in one ledger entry",
            fix=f"say at most {NODES_MAX} machines, and give all others a token of "
            "`meshd token join`: they become workers",
        )
    if nodes_max < control_plane:
        raise ConfigError(
            "MESH-1014",
            f"{nodes_max} machines do not fit a control plane of {control_plane}",
            fix=f"say at least {control_plane} machines",
        )


def _is_safe(bounds: Bounds) -> bool:
    if bounds.bound == "open" or bounds.is_open:
        least = Bounds.unbounded(control_plane=bounds.control_plane)
        known = 1 <= bounds.control_plane <= CONTROL_PLANE_MAX
        return known and bounds == replace(least, quorum=max(least.quorum, bounds.quorum))
    return (
        1 <= bounds.control_plane <= min(CONTROL_PLANE_MAX, bounds.nodes_max)
        and bounds.control_plane <= bounds.quorum <= bounds.nodes_max < 2 * bounds.quorum
    )


def _canonical_seed(text: str) -> str:
    try:
        address = parse_tcp_address(text)
    except ValueError as error:
        raise _bad_seed(text, str(error)) from None
    if address.port == 0:
        raise _bad_seed(text, "nothing can be reached at port 0")
    return str(address)


def _encode_seed(address: TcpAddress) -> bytes:
    """Kind (bit 7: a node's key follows), host, port, and the 32-byte key."""
    kind = HOST_KINDS.index(address.kind)
    host: bytes
    if address.kind == "ip4":
        host = IPv4Address(address.host).packed
    elif address.kind == "ip6":
        host = IPv6Address(address.host).packed
    else:
        host = bytes([len(address.host)]) + address.host.encode()
    key = b"" if address.node is None else public_key_of(address.node)
    return bytes([kind | (0x80 if key else 0)]) + host + address.port.to_bytes(2, "big") + key


def _decode_seeds(content: bytes) -> tuple[str, ...]:
    seeds = []
    while content:
        kind, has_key, content = content[0] & 0x7F, content[0] >> 7, content[1:]
        if kind >= len(HOST_KINDS):
            raise _unreadable("a seed is of a kind this version does not know")
        name = kind >= HOST_KINDS.index("dns")
        size = (4, 16)[kind] if not name else content[0] + 1 if content else 1
        if len(content) < size + 2 + 32 * has_key:
            raise _unreadable("its last seed is cut off")
        host, rest = content[:size], content[size:]
        text = (
            host[1:].decode(errors="replace")
            if name
            else str(IPv4Address(host) if size == 4 else IPv6Address(host))
        )
        suffix = f"/p2p/{node_id_of(rest[2:34])}" if has_key else ""
        port = int.from_bytes(rest[:2], "big")
        seeds.append(_canonical_seed(f"/{HOST_KINDS[kind]}/{text}/tcp/{port}{suffix}"))
        content = rest[2 + 32 * has_key :]
    return tuple(seeds)


def _mistyped(text: str, mistake: checksum.Mistake) -> ConfigError:
    shown = f" ({text[mistake.place - 1]!r})" if 0 < mistake.place <= len(text) else ""
    where = f" at character {mistake.place}{shown}" if mistake.place else ""
    return ConfigError(
        "MESH-1002",
        f"the token is mistyped{where}: {mistake.what}",
        fix="compare it with the original; copying is safer than typing, `--qr` safer still",
    )


def _unreadable(why: str) -> ConfigError:
    return ConfigError(
        "MESH-1012",
        f"the token cannot be read: {why}",
        fix="update meshd, or make the token again with this version",
    )


def _bad_seed(text: str, why: str) -> ConfigError:
    return ConfigError(
        "MESH-1015",
        f"the seed {text!r} is no address: {why}",
        fix="write it as /ip4/203.0.113.7/tcp/7946 or /dns/seed.example.org/tcp/7946",
    )
