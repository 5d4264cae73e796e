"""Every key that meshd reads, with its type. This list is the configuration's schema.

Kairos' keys keep their names and meaning (kairos-io/provider-kairos,
internal/provider/config/config.go); meshd's own stand below `p2p.meshd`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshd.config import kubevip_keys, values
from meshd.config.key import Key
from roles import RoleWish

LogLevel = Literal["debug", "info", "warning", "error"]
Discovery = Literal["lan", "seeds", "dht"]

SECTIONS = ("p2p", "kubevip", "k3s", "k3s-agent")

SHAPE_KEYS = frozenset({"external_db", "eip", "master_nodes", "minimum_nodes", "nodes_max"})
"""Last names of keys that shape the cluster: in a wrong place they stop the daemon."""


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

NETWORK_TOKEN = Key(
    path="p2p.network_token",
    read=values.text,
    secret=True,
    about="The token that makes machines one network, of `meshd token new` or of EdgeVPN; the same "
    "on every machine.",
)
NETWORK_ID = Key(
    path="p2p.network_id",
    read=values.text,
    about="Makes several networks of one token; machines with different ones never meet.",
    default="kairos",
)
ROLE = Key(
    path="p2p.role",
    read=values.choice(_ROLES),
    about="What this machine is to be: `master` (or `control-plane`), `worker`, `none` (never runs "
    "k3s), `auto` (agreed on with the others).",
    default="auto",
)
MINIMUM_NODES = Key(
    path="p2p.minimum_nodes",
    read=values.count(0, 65535),
    about="At least so many machines must agree before a cluster starts.",
)
DISABLE_DHT = Key(
    path="p2p.disable_dht",
    read=values.flag,
    about="Look for other machines without the public DHT.",
    default=False,
)
LOGLEVEL = Key(
    path="p2p.loglevel",
    read=values.choice(_LOG_LEVELS),
    about="Kairos' key for the log level; p2p.meshd.log_level wins.",
)
DNS = Key(
    path="p2p.dns",
    read=values.flag,
    idle="names belong to the overlay, and " + _LATER,
    moot=("p2p.vpn.create", False),
    about="EdgeVPN's name service.",
)
DYNAMIC_ROLES = Key(
    path="p2p.dynamic_roles",
    read=values.flag,
    idle="roles are decided once",
    about="Kairos' experiment with roles that change.",
)
VPN_CREATE = Key(
    path="p2p.vpn.create",
    read=values.flag,
    about="Make an overlay network among the machines.",
    default=True,
)
VPN_USE = Key(
    path="p2p.vpn.use",
    read=values.flag,
    about="Let k3s use the overlay.",
    default=True,
)
VPN_ENV = Key(
    path="p2p.vpn.env",
    read=values.text_table,
    idle="it sets EdgeVPN up, which is not used",
    moot=("p2p.vpn.create", False),
    about="EdgeVPN's variables.",
)
AUTO_ENABLE = Key(
    path="p2p.auto.enable",
    read=values.flag,
    about="Let the machines agree on their roles. A file that says false is refused: then meshd "
    "has nothing to do.",
    default=True,
)
HA_ENABLE = Key(
    path="p2p.auto.ha.enable",
    read=values.flag,
    about="Whether the control plane has more than one machine; false makes it one. Without it: "
    "exactly if master_nodes is set.",
)
MASTER_NODES = Key(
    path="p2p.auto.ha.master_nodes",
    read=values.count(0, 6),
    about="Control-plane machines besides the first: 2 means three in all.",
)
EXTERNAL_DB = Key(
    path="p2p.auto.ha.external_db",
    read=values.text,
    secret=True,
    about="k3s' datastore endpoint, in place of embedded etcd.",
)

NODES_MAX = Key(
    path="p2p.meshd.nodes_max",
    read=values.count(1, 65535),
    about="The most machines that will ever get this token with the right to vote; it may narrow "
    "what the token says.",
)
SEEDS = Key(
    path="p2p.meshd.seeds",
    read=values.list_of(values.multiaddr),
    about="Addresses to ask first, besides the token's.",
    default=[],
)
LISTEN = Key(
    path="p2p.meshd.listen",
    read=values.list_of(values.multiaddr),
    about="Where to listen.",
    default=["/ip4/0.0.0.0/tcp/7946", "/ip6/::/tcp/7946"],
)
DISCOVERY = Key(
    path="p2p.meshd.discovery",
    read=values.list_of(values.choice(_DISCOVERY)),
    about="How other machines are looked for.",
    default=["lan", "seeds", "dht"],
)
INTERFACE = Key(
    path="p2p.meshd.interface",
    read=values.interface,
    about="The network interface whose address is the node's own. Without it: the one of the "
    "default route.",
)
LABELS = Key(
    path="p2p.meshd.labels",
    read=values.text_table,
    about="Labels of this machine's Kubernetes Node.",
    default={},
)
LOG_LEVEL = Key(
    path="p2p.meshd.log_level",
    read=values.choice(_LOG_LEVELS),
    about="How much the daemon logs.",
    default="info",
)
ADMISSION = Key(
    path="p2p.meshd.admission",
    read=values.choice({"token": "token", "allowlist": "allowlist", "approve": "approve"}),
    about="Who may join: this version admits whoever has the token, and refuses other values.",
    default="token",
)
ADMINS = Key(
    path="p2p.meshd.admins",
    read=values.list_of(values.admin),
    about="Public keys (`age1…`) of people who get the cluster's kubeconfig on any node, sealed to "
    "them: `meshd kubeconfig --key FILE`.",
    default=[],
)
SCHEMA = Key(
    path="p2p.meshd.schema",
    read=values.count(1, 1),
    about="Version of meshd's own keys.",
    default=1,
)


_ENABLED: dict[str, Key[bool]] = {
    "k3s": Key(
        path="k3s.enabled",
        read=values.flag,
        idle="the machines agree on who is a server; `p2p.role: none` keeps a machine from running "
        "k3s, `p2p.role: worker` from being a server",
        settled=(True,),
        about="Kairos' switch for a server without coordination.",
    ),
    "k3s-agent": Key(
        path="k3s-agent.enabled",
        read=values.flag,
        about="`false` leaves k3s-agent.args and k3s-agent.env out. Who is a worker the machines "
        "agree on.",
    ),
}
_EMBEDDED_REGISTRY: dict[str, Key[bool]] = {
    "k3s": Key(
        path="k3s.embedded_registry",
        read=values.flag,
        about="Run k3s' embedded registry mirror, on workers too.",
        default=False,
    ),
    "k3s-agent": Key(
        path="k3s-agent.embedded_registry",
        read=values.flag,
        idle="workers follow the servers' k3s.embedded_registry",
        moot=("k3s.embedded_registry", True),
        about="The same for workers; Kairos reads it nowhere.",
    ),
}


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
    def of(cls, section: str, who: str) -> K3sKeys:
        """Return the keys below `section`, which are for `who`."""
        return cls(
            enabled=_ENABLED[section],
            args=Key(
                path=f"{section}.args",
                read=values.command_words,
                about=f"Further arguments of k3s on {who}. Those that decide which cluster it "
                "belongs to, or who it is, are refused.",
                default=[],
            ),
            env=Key(
                path=f"{section}.env",
                read=values.text_table,
                secret=True,
                about=f"Variables for k3s on {who}.",
                default={},
            ),
            replace_args=Key(
                path=f"{section}.replace_args",
                read=values.flag,
                about="Leave out the one argument that meshd only suggests, flannel-iface. What "
                "decides which cluster k3s belongs to, and what another key asks for, stays.",
                default=False,
            ),
            replace_env=Key(
                path=f"{section}.replace_env",
                read=values.flag,
                idle="meshd gives k3s no variables of its own that could be left out",
                settled=(False, True),
                about="Kairos' way to leave its own variables out.",
            ),
            embedded_registry=_EMBEDDED_REGISTRY[section],
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


K3S = K3sKeys.of("k3s", "control-plane machines")
K3S_AGENT = K3sKeys.of("k3s-agent", "workers")

_NOT_YET: tuple[Key[object], ...] = (
    Key(
        path="p2p.meshd.relays",
        read=values.list_of(values.text),
        idle=_LATER,
        about="Nodes that pass connections on.",
    ),
    Key(
        path="p2p.meshd.relay_service",
        read=values.choice({"auto": "auto", "always": "always", "never": "never"}),
        idle=_LATER,
        about="Whether this node passes connections on.",
    ),
    Key(
        path="p2p.meshd.overlay_cidr",
        read=values.network,
        idle=_LATER,
        about="Addresses of the overlay.",
    ),
    Key(
        path="p2p.meshd.allow",
        read=values.list_of(values.text),
        idle=_LATER,
        about="Machines that may join.",
    ),
    Key(
        path="p2p.meshd.repair_after",
        read=values.duration_s,
        idle=_LATER,
        about="How long a control-plane machine may be gone before another takes its place.",
    ),
)

ALL: dict[str, Key[object]] = {
    key.path: key
    for key in (
        *(NETWORK_TOKEN, NETWORK_ID, ROLE, MINIMUM_NODES, DISABLE_DHT, LOGLEVEL, DNS),
        *(DYNAMIC_ROLES, VPN_CREATE, VPN_USE, VPN_ENV, AUTO_ENABLE, HA_ENABLE, MASTER_NODES),
        *(EXTERNAL_DB, NODES_MAX, SEEDS, LISTEN, DISCOVERY, INTERFACE, LABELS, LOG_LEVEL),
        *(ADMISSION, ADMINS, SCHEMA, *_NOT_YET, *kubevip_keys.EVERY, *K3S.all, *K3S_AGENT.all),
    )
}
"""Every key by its path."""
