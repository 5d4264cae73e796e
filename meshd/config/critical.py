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
    [
        *("agent-token", "agent-token-file", "cluster-init", "cluster-reset"),
        *("cluster-reset-restore-path", "config", "data-dir", "datastore-endpoint"),
        *("disable-apiserver", "disable-etcd", "https-listen-port", "node-ip", "node-name"),
        *("server", "supervisor-port", "token", "token-file", "with-node-id"),
    ]
)
"""What decides which cluster k3s belongs to, who it is there, and where meshd finds it.

Meshd alone may say it, because k3s lets later files, flags and variables win over earlier ones
(k3s pkg/configfilearg/parser.go).
"""

RESERVED_VARIABLES = frozenset(
    ["K3S_URL", "K3S_CONFIG_FILE"] + [f"K3S_{flag.upper().replace('-', '_')}" for flag in RESERVED]
)
"""The same as variables of k3s' environment."""

_SHORT = {"c": "config", "d": "data-dir", "i": "node-ip", "s": "server", "t": "token"}
_FLAGS = (
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

    Not what is `RESERVED`, which meshd makes equal on all servers. The address of an external
    database, which can hold a password, is given as a hash.
    """
    given: dict[str, list[str]] = {}
    for name, value in parse_args(args):
        given.setdefault(name, []).append(value)
    settings = {name: given.get(name, ["false"])[-1] for name in _FLAGS}
    for name, default in _VALUES.items():
        settings[name] = _canonical(name, ",".join(given.get(name, [default])))
    if embedded_registry:
        settings["embedded-registry"] = "true"
    disabled = ",".join(given.get("disable", [])).replace(" ", "").split(",")
    settings["disable-service-lb"] = "true" if "servicelb" in disabled else "false"
    settings["datastore-endpoint"] = _hidden(external_db or "")
    return tuple(sorted(settings.items()))


def is_reserved(flag: str) -> bool:
    """Whether a flag, without dashes, long or short, is one that meshd alone may set."""
    return _SHORT.get(flag, flag) in RESERVED


def parse_args(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (long flag without dashes, value) as k3s' command line parser understands `words`."""
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("-"):
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = _SHORT.get(name, name)
        if name in _FLAGS or name.startswith("disable-"):
            yield name, value.lower() if equals else "true"
        elif equals:
            yield name, value
        elif index < len(words) and not words[index].startswith("-"):
            yield name, words[index]
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
    return value


def _hidden(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()[:32] if secret else ""
