"""Every key that meshd reads, with its type. This list is the configuration's schema.

Kairos' keys keep their names and meaning (kairos-io/provider-kairos,
internal/provider/config/config.go); meshd's own stand below `p2p.meshd`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from meshd.config import values
from meshd.config.tree import Tree
from roles import RoleWish

T_co = TypeVar("T_co", covariant=True)

LogLevel = Literal["debug", "info", "warning", "error"]
Discovery = Literal["lan", "seeds", "dht"]

SECTIONS = ("p2p", "kubevip", "k3s", "k3s-agent")

SHAPE_KEYS = frozenset({"external_db", "eip", "master_nodes", "minimum_nodes", "nodes_max"})
"""Last names of keys that shape the cluster: in a wrong place they stop the daemon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Generic[T_co]):
    """A key: where it stands, how its value is read, and whether it must not be shown.

    `idle` says why a key that is accepted has no effect.
    """

    path: str
    read: Callable[[Tree], T_co]
    secret: bool = False
    idle: str | None = None


_LOG_LEVELS: dict[str, LogLevel] = {
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "warning": "warning",
    "error": "error",
    "fatal": "error",
    "panic": "error",
}
_ROLES: dict[str, RoleWish] = {
    "": "auto",
    "auto": "auto",
    "master": "control-plane",
    "control-plane": "control-plane",
    "worker": "worker",
    "none": "none",
}
_DISCOVERY: dict[str, Discovery] = {"lan": "lan", "seeds": "seeds", "dht": "dht"}
_LATER = "this version does not act on it yet"

NETWORK_TOKEN = Key(path="p2p.network_token", read=values.text, secret=True)
NETWORK_ID = Key(path="p2p.network_id", read=values.text)
ROLE = Key(path="p2p.role", read=values.choice(_ROLES))
MINIMUM_NODES = Key(path="p2p.minimum_nodes", read=values.count(0, 65535))
DISABLE_DHT = Key(path="p2p.disable_dht", read=values.flag)
LOGLEVEL = Key(path="p2p.loglevel", read=values.choice(_LOG_LEVELS))
DNS = Key(path="p2p.dns", read=values.flag, idle="names belong to the overlay, and " + _LATER)
DYNAMIC_ROLES = Key(
    path="p2p.dynamic_roles", read=values.flag, idle="roles are decided once, then repaired"
)
VPN_CREATE = Key(path="p2p.vpn.create", read=values.flag)
VPN_USE = Key(path="p2p.vpn.use", read=values.flag)
VPN_ENV = Key(
    path="p2p.vpn.env", read=values.text_table, idle="it sets EdgeVPN up, which is not used"
)
AUTO_ENABLE = Key(path="p2p.auto.enable", read=values.flag)
HA_ENABLE = Key(path="p2p.auto.ha.enable", read=values.flag)
MASTER_NODES = Key(path="p2p.auto.ha.master_nodes", read=values.count(0, 6))
EXTERNAL_DB = Key(path="p2p.auto.ha.external_db", read=values.text, secret=True)

NODES_MAX = Key(path="p2p.meshd.nodes_max", read=values.count(1, 65535))
SEEDS = Key(path="p2p.meshd.seeds", read=values.list_of(values.multiaddr))
LISTEN = Key(path="p2p.meshd.listen", read=values.list_of(values.multiaddr))
DISCOVERY = Key(path="p2p.meshd.discovery", read=values.list_of(values.choice(_DISCOVERY)))
INTERFACE = Key(path="p2p.meshd.interface", read=values.text)
LABELS = Key(path="p2p.meshd.labels", read=values.text_table)
LOG_LEVEL = Key(path="p2p.meshd.log_level", read=values.choice(_LOG_LEVELS))
ADMISSION = Key(
    path="p2p.meshd.admission",
    read=values.choice({"token": "token", "allowlist": "allowlist", "approve": "approve"}),
)
SCHEMA = Key(path="p2p.meshd.schema", read=values.count(1, 1))

KUBEVIP_EIP = Key(path="kubevip.eip", read=values.address)
KUBEVIP_ENABLE = Key(path="kubevip.enable", read=values.flag)
KUBEVIP_INTERFACE = Key(path="kubevip.interface", read=values.text)
KUBEVIP_VERSION = Key(path="kubevip.version", read=values.text)
KUBEVIP_IMAGE = Key(path="kubevip.image", read=values.text)
KUBEVIP_STATIC_POD = Key(path="kubevip.static_pod", read=values.flag)
KUBEVIP_MANIFEST_URL = Key(path="kubevip.manifest_url", read=values.text)
KUBEVIP_LEASE = Key(path="kubevip.leaseDuration", read=values.count(1, 3600))
KUBEVIP_RENEW = Key(path="kubevip.renewDeadline", read=values.count(1, 3600))
KUBEVIP_RETRY = Key(path="kubevip.retryPeriod", read=values.count(1, 3600))


# kube-vip's own settings (kube-vip v1.2.3, pkg/kubevip/config_types.go).
_KUBEVIP_FLAGS = """
enableARP enableBGP enableControlPlane enableServices enableServicesElection enableNodeLabeling
enableLoadBalancer enableLeaderElection enableEndpointSlices lbClassOnly ddns singleNode
startAsLeader detectControlPlane disableServiceUpdates cleanRoutingTable loInterfaceGlobalScope
enableRoutingTable enableWireguard
"""
_KUBEVIP_COUNTS = """
logging port lbPort arpBroadcastRate routingTableID routingTableType routingProtocol
backendHealthCheckInterval
"""
_KUBEVIP_TEXTS = """
vip vipSubnet vipCidr address namespace serviceNamespace leaseName leaseNodeName servicesLeaseName
servicesInterface lbClassName lbForwardingMethod prometheusHTTPServer k8sConfigFile
dnsDualStackMode mirrorDestInterface iptablesBackend kubernetesAddr leaderElectionType
"""
KUBEVIP_OWN: tuple[Key[str | int | bool], ...] = (
    *(Key(path=f"kubevip.{name}", read=values.flag) for name in _KUBEVIP_FLAGS.split()),
    *(
        Key(path=f"kubevip.{name}", read=values.count(0, 2**31 - 1))
        for name in _KUBEVIP_COUNTS.split()
    ),
    *(Key(path=f"kubevip.{name}", read=values.text) for name in _KUBEVIP_TEXTS.split()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class K3sKeys:
    """The keys of `k3s` or `k3s-agent`, which have the same form."""

    enabled: Key[bool]
    args: Key[tuple[str, ...]]
    env: Key[tuple[tuple[str, str], ...]]
    replace_args: Key[bool]
    replace_env: Key[bool]
    embedded_registry: Key[bool]

    @classmethod
    def of(cls, section: str) -> K3sKeys:
        """Return the keys below `section`."""
        return cls(
            enabled=Key(path=f"{section}.enabled", read=values.flag),
            args=Key(path=f"{section}.args", read=values.command_words),
            env=Key(path=f"{section}.env", read=values.text_table, secret=True),
            replace_args=Key(path=f"{section}.replace_args", read=values.flag),
            replace_env=Key(path=f"{section}.replace_env", read=values.flag),
            embedded_registry=Key(path=f"{section}.embedded_registry", read=values.flag),
        )

    @property
    def all(self) -> tuple[Key[object], ...]:
        return (
            self.enabled,
            self.args,
            self.env,
            self.replace_args,
            self.replace_env,
            self.embedded_registry,
        )


K3S = K3sKeys.of("k3s")
K3S_AGENT = K3sKeys.of("k3s-agent")

_NOT_YET: tuple[Key[object], ...] = (
    Key(path="p2p.meshd.relays", read=values.list_of(values.text), idle=_LATER),
    Key(
        path="p2p.meshd.relay_service",
        read=values.choice({"auto": "auto", "always": "always", "never": "never"}),
        idle=_LATER,
    ),
    Key(path="p2p.meshd.overlay_cidr", read=values.network, idle=_LATER),
    Key(path="p2p.meshd.allow", read=values.list_of(values.text), idle=_LATER),
    Key(path="p2p.meshd.admins", read=values.list_of(values.text), idle=_LATER),
    Key(path="p2p.meshd.repair_after", read=values.duration_s, idle=_LATER),
)

ALL: dict[str, Key[object]] = {
    key.path: key
    for key in (
        *(NETWORK_TOKEN, NETWORK_ID, ROLE, MINIMUM_NODES, DISABLE_DHT, LOGLEVEL, DNS),
        *(DYNAMIC_ROLES, VPN_CREATE, VPN_USE, VPN_ENV, AUTO_ENABLE, HA_ENABLE, MASTER_NODES),
        *(EXTERNAL_DB, NODES_MAX, SEEDS, LISTEN, DISCOVERY, INTERFACE, LABELS, LOG_LEVEL),
        *(ADMISSION, SCHEMA, KUBEVIP_EIP, KUBEVIP_ENABLE, KUBEVIP_INTERFACE, KUBEVIP_VERSION),
        *(KUBEVIP_IMAGE, KUBEVIP_STATIC_POD, KUBEVIP_MANIFEST_URL, KUBEVIP_LEASE),
        *(KUBEVIP_RENEW, KUBEVIP_RETRY, *KUBEVIP_OWN, *K3S.all, *K3S_AGENT.all, *_NOT_YET),
    )
}
"""Every key by its path."""
