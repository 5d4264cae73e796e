"""The k3s settings that all servers of a cluster must share, read from the user's arguments.

k3s compares them when a server joins and refuses it with `critical configuration value mismatch
between servers` (k3s, pkg/daemons/config/types.go: CriticalControlArgs). Spelling does not count:
order, `--flag value` or `--flag=value`, defaults written out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network

RESERVED = frozenset(
    {"cluster-init", "cluster-reset", "server", "token", "token-file", "agent-token-file"}
)
"""Flags that meshd alone may set: they decide which cluster a node starts or joins."""

_SHORT = {"s": "server", "t": "token"}
_FLAGS = (
    "cluster-init",
    "cluster-reset",
    "disable-cloud-controller",
    "disable-helm-controller",
    "disable-network-policy",
    "embedded-registry",
    "flannel-external-ip",
    "flannel-ip-masq-disable-random-fully",
    "flannel-ipv6-masq",
    "secrets-encryption",
    "supervisor-metrics",
)
_VALUES = {
    "agent-token": "",
    "cluster-cidr": "10.42.0.0/16",
    "cluster-dns": "",  # The tenth address of service-cidr.
    "cluster-domain": "cluster.local",
    "egress-selector-mode": "agent",
    "flannel-backend": "vxlan",
    "secrets-encryption-provider": "aescbc",
    "service-cidr": "10.43.0.0/16",
}


def critical_settings(
    args: Sequence[str], *, embedded_registry: bool, external_db: str | None
) -> tuple[tuple[str, str], ...]:
    """Return (flag, canonical value) of everything critical, defaults included, sorted by flag.

    Secrets among them (agent token, address of an external database) are given as hashes.
    """
    given: dict[str, list[str]] = {}
    for name, value in parse_args(args):
        given.setdefault(name, []).append(value)
    settings = {name: given.get(name, ["false"])[-1] for name in _FLAGS if name not in RESERVED}
    for name, default in _VALUES.items():
        settings[name] = _canonical(name, ",".join(given.get(name, [default])))
    if embedded_registry:
        settings["embedded-registry"] = "true"
    disabled = ",".join(given.get("disable", [])).replace(" ", "").split(",")
    settings["disable-service-lb"] = "true" if "servicelb" in disabled else "false"
    endpoint = external_db or ",".join(given.get("datastore-endpoint", []))
    settings["datastore-endpoint"] = _hidden(endpoint)
    return tuple(sorted(settings.items()))


def parse_args(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (flag without dashes, value) as k3s' command line parser understands `args`.

    An item may hold a flag, a value, or both with a space between, as people write them.
    """
    words = [word for item in args for word in item.split()]
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = _SHORT.get(name, name)
        value = value.strip("\"'")
        if name in _FLAGS or name.startswith("disable-"):
            yield name, value.lower() if equals else "true"
        elif equals:
            yield name, value
        elif index < len(words) and not words[index].startswith("-"):
            yield name, words[index].strip("\"'")
            index += 1
        else:
            yield name, "true"


def _canonical(name: str, value: str) -> str:
    """Return one spelling for all that mean the same."""
    parts = [part.strip() for part in value.split(",") if part.strip()]
    try:
        if name in {"cluster-cidr", "service-cidr"}:
            return ",".join(str(ip_network(part, strict=False)) for part in parts)
        if name == "cluster-dns":
            return ",".join(str(ip_address(part)) for part in parts)
    except ValueError:
        return value  # k3s refuses it itself, with a better message.
    return _hidden(value) if name == "agent-token" else value


def _hidden(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()[:32] if secret else ""
