"""What k3s is told, a pure function of the order: a drop-in file, a command line, an environment.

Invariants: the drop-in says exactly one of `cluster-init` and `server`; tokens are named by file,
never inline; no other file, flag or variable may say where k3s belongs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Network
from pathlib import Path
from typing import Literal

import yaml

from ledger import Instant
from meshd.cluster.paths import API_PORT, K3sPaths
from meshd.config.critical import RESERVED_VARIABLES, is_reserved, parse_args
from meshd.config.schema import K3sArguments, Settings
from meshd.events import ClusterOrder
from meshd.holder.lease import cluster_of
from roles import ClusterPlan

_DEFAULT_PATHS = K3sPaths()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """This node, as far as k3s must be told.

    Args:
        flannel_interface: set only if the first address on it is `node_ip`, because flannel takes
            the first one (k3s pkg/agent/flannel/flannel.go, LookupExtInterface).
        environment: what k3s inherits.
    """

    node_name: str
    node_ip: str | None
    flannel_interface: str | None
    binary: Path
    paths: K3sPaths
    token_file: Path
    agent_token_file: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How k3s is run.

    Args:
        incarnation: a k3s running as another one is stopped first; one running as this one is left
            alone, whatever its arguments were when it started.
        needs: paths without which k3s must not be started.
        keeps: the same, once this incarnation was seen to have them. Whoever holds k3s remembers
            that, because the daemon may be dead when the path appears and when it disappears.
        leased: it may run only as long as the forming lease.
        formed: its cluster is: then a broken gate keeps it from nothing.
        server: URL of the server that it is told to join; "" for one that begins.
        once: it is not started again in this boot after it ended.
    """

    incarnation: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    needs: tuple[Path, ...]
    keeps: tuple[Path, ...] = ()
    leased: bool = False
    formed: bool = False
    server: str = ""
    once: bool = False

    @property
    def cluster(self) -> str:
        """The id of the cluster that k3s is to belong to."""
        return cluster_of(self.incarnation)


_RANGES = ("cluster-cidr", "service-cidr")


def mode_of(order: ClusterOrder) -> Literal["server", "agent"]:
    """Return k3s' subcommand for the order's seat."""
    return "agent" if order.seat == "worker" else "server"


def arguments_of(order: ClusterOrder, settings: Settings) -> K3sArguments:
    """Return what the user adds to k3s for the order's seat."""
    return settings.k3s_agent if order.seat == "worker" else settings.k3s


def conflict(
    arguments: K3sArguments, files: Iterable[tuple[str, Iterable[str] | None]]
) -> str | None:
    """Return why the user's own settings of k3s cannot stand beside meshd's, or None.

    Args:
        arguments: `k3s.*` or `k3s-agent.*`.
        files: (path, keys) of k3s' other configuration files; None: it cannot be read.
    """
    for flag, _ in parse_args(arguments.args):
        if is_reserved(flag):
            return f"k3s.args has --{flag}, which meshd decides: remove it"
    for name, _ in arguments.env:
        if name in RESERVED_VARIABLES:
            return f"k3s.env has {name}, which meshd decides: remove it"
    for path, keys in files:
        if keys is None:
            return f"{path} is not YAML that meshd can check: correct it, or move it away"
        for key in keys:
            if is_reserved(key.removesuffix("+")):
                return f"{path} has {key}, which meshd decides: remove it"
    return None


def drop_in(
    order: ClusterOrder, settings: Settings, machine: Machine, *, given: Collection[str] = ()
) -> bytes:
    """Return the content of `config.yaml.d/50-meshd.yaml` for a node that has a seat.

    `given` are the keys of k3s' other configuration files, which are read before this one.
    """
    assert order.plan is not None
    worker = order.seat == "worker"
    says: dict[str, object] = {
        "node-name": machine.node_name,
        "token-file": str(machine.token_file),
    } | origin(order, machine.node_ip)
    if machine.node_ip is not None:
        says["node-ip"] = machine.node_ip
    users = arguments_of(order, settings)
    suggested = not users.replace_args and not _says(users, "flannel-iface")
    if suggested and machine.flannel_interface is not None:
        says["flannel-iface"] = machine.flannel_interface
    if settings.labels:
        says["node-label+"] = [f"{key}={value}" for key, value in settings.labels]
    if not worker:
        says["agent-token-file"] = str(machine.agent_token_file)
        if order.plan.vip is not None:
            says["tls-san+"] = [order.plan.vip]
        if settings.k3s.embedded_registry:
            says["embedded-registry"] = True
        asked = [flag for flag in _RANGES if flag in given or _says(settings.k3s, flag)]
        says |= {} if asked else ipv6_ranges(order.plan)
    if machine.paths.data_dir != _DEFAULT_PATHS.data_dir:
        says["data-dir"] = str(machine.paths.data_dir)
    if machine.paths.config_dir != _DEFAULT_PATHS.config_dir and not worker:
        says["write-kubeconfig"] = str(machine.paths.kubeconfig)
    text = yaml.safe_dump(says, sort_keys=True)
    return f"# Written by meshd; changes are overwritten.\n{text}".encode()


def ipv6_ranges(plan: ClusterPlan) -> dict[str, object]:
    """Return the ranges for pods and services if the cluster's nodes have IPv6 addresses.

    k3s has IPv4 ranges by default, and servers that differ in theirs do not join one another, so
    all take them from the plan: a unique local prefix (RFC 4193) of its random id. Pods reach the
    world from their node's address, since nobody routes to that prefix.
    """
    if ":" not in plan.seats[0].node_ip:
        return {}
    number = hashlib.sha256(f"meshd pods {plan.cluster_id}".encode()).hexdigest()[:10]
    prefix = f"fd{number[:2]}:{number[2:6]}:{number[6:]}"
    return {
        "cluster-cidr": str(IPv6Network(f"{prefix}:4200::/56")),
        "service-cidr": str(IPv6Network(f"{prefix}:4300::/112")),
        "flannel-ipv6-masq": True,
    }


def origin(order: ClusterOrder, node_ip: str | None) -> dict[str, object]:
    """Return the one of `cluster-init` and `server` that holds for this order.

    Once formed, the initialiser too is told to join another member: should its database be lost,
    k3s then joins instead of starting a second cluster. With no other member it stays
    `cluster-init`, and `launch` makes the database a condition of the start.
    """
    plan = order.plan
    assert plan is not None
    if order.seat == "initialiser" and not order.formed:
        return {"cluster-init": True}
    others = to_join(order, node_ip)
    if others:
        return {"server": url_of(others[0])}
    assert is_alone(order), "others are not started without an address to join"
    return {"cluster-init": True}


def is_alone(order: ClusterOrder) -> bool:
    """Whether the order's server has nobody to join: the plan, or a reset, left it the only seat.

    Its database is a condition of every start then, once there was one.
    """
    return order.seat != "worker" and order.plan is not None and len(order.plan.seats) == 1


def to_join(order: ClusterOrder, node_ip: str | None) -> list[str]:
    """Return addresses of other servers, best first.

    Never our own, nor the VIP, which may be ours: k3s would find only itself and start anew
    (k3s pkg/etcd/etcd.go, join).
    """
    assert order.plan is not None
    known = [*order.join, *(seat.node_ip for seat in order.plan.seats)]
    return [address for address in known if address not in (node_ip, order.plan.vip)]


def launch(order: ClusterOrder, settings: Settings, machine: Machine, *, begun: bool) -> Launch:
    """Return how k3s is to be run; `begun`: the database was seen on this disk."""
    assert order.plan is not None
    arguments = arguments_of(order, settings)
    mode = mode_of(order)
    environment = {
        name: value
        for name, value in machine.environment.items()
        if not name.startswith(("K3S_", "MESHD_", "LISTEN_", "NOTIFY_"))
    } | dict(arguments.env)
    if machine.paths.config_dir != _DEFAULT_PATHS.config_dir:
        environment["K3S_CONFIG_FILE"] = str(machine.paths.config)
    beginning = origin(order, machine.node_ip)
    initialises = "cluster-init" in beginning
    return Launch(
        incarnation=f"{order.plan.cluster_id}/{mode}{_moved(order)}",
        argv=(str(machine.binary), mode, *arguments.args, *_restated(order, arguments)),
        environment=tuple(sorted(environment.items())),
        needs=(machine.paths.etcd_log,) if initialises and (begun or order.formed) else (),
        keeps=(machine.paths.etcd_log,) if initialises else (),
        leased=order.lease_until is not None,
        formed=order.formed,
        server=str(beginning.get("server", "")),
    )


def _moved(order: ClusterOrder) -> str:
    """Return what tells a k3s with new addresses from the one before, which is to end for it."""
    return f"/addresses-{order.readdressed}" if order.readdressed else ""


def reset_flags(snapshot: str) -> tuple[str, ...]:
    """Return what k3s is told to reset etcd's membership; `snapshot` is the path or empty."""
    restore = (f"--cluster-reset-restore-path={snapshot}",) if snapshot else ()
    return (*restore, "--cluster-reset")


def reset_launch(
    order: ClusterOrder, settings: Settings, machine: Machine, *, attempt: int, snapshot: str = ""
) -> Launch:
    """Return how etcd's membership is reset: once, with all that k3s is told here besides.

    Without a database, or the `snapshot` that it is to come from, k3s would begin a new cluster.
    """
    usual = launch(order, settings, machine, begun=True)
    return replace(
        usual,
        incarnation=f"{usual.cluster}/reset-{order.epoch + 1}-{attempt}",
        argv=(*usual.argv, *reset_flags(snapshot)),
        needs=(Path(snapshot) if snapshot else machine.paths.etcd_log,),
        keeps=(),
        once=True,
    )


def reset_drop_in(content: bytes) -> bytes:
    """Return a drop-in without where to join, which k3s refuses beside --cluster-reset."""
    says = yaml.safe_load(content)
    says = {key: value for key, value in says.items() if key not in ("server", "cluster-init")}
    text = yaml.safe_dump(says, sort_keys=True)
    return f"# Written by meshd; changes are overwritten.\n{text}".encode()


def _restated(order: ClusterOrder, arguments: K3sArguments) -> tuple[str, ...]:
    """Return what the drop-in says too, for a user whose own list takes the place of the file's."""
    assert order.plan is not None
    if order.seat == "worker" or order.plan.vip is None or not _says(arguments, "tls-san"):
        return ()
    return ("--tls-san", order.plan.vip)


def url_of(address: str, port: int = API_PORT) -> str:
    """Return the https URL of an IPv4 or IPv6 address."""
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def joining_token(*, ca_hash: str, user: Literal["server", "node"], password: str) -> str:
    """Return k3s' full token, which trusts only the cluster whose authority has that hash."""
    return f"K10{ca_hash}::{user}:{password}"


def runs_agent(arguments: K3sArguments) -> bool:
    """Whether a server also runs pods and has a Node object."""
    return not _says(arguments, "disable-agent")


def _says(arguments: K3sArguments, flag: str) -> bool:
    return any(
        argument.lstrip("-").partition("=")[0] == flag
        for argument in arguments.args
        if argument.startswith("-")
    )


def without_lease(order: ClusterOrder) -> ClusterOrder:
    """Return the order as it stays while its lease grows."""
    return order if order.lease_until is None else replace(order, lease_until=Instant(0.0))


def cluster_ordered(order: ClusterOrder) -> str | None:
    """Return the id of the cluster that is ordered, if one is."""
    return None if order.plan is None else order.plan.cluster_id


def vip_ordered(order: ClusterOrder) -> str | None:
    """Return the virtual address of the plan that is ordered, if it has one."""
    return None if order.plan is None else order.plan.vip
