"""The keys below `kubevip`: Kairos' own, and kube-vip's settings by kube-vip's names.

kube-vip v1.2.3, pkg/kubevip/config_types.go. Kairos' structure embeds kube-vip's without
`inline`, so its reader finds them below `kubevip.config` only (gopkg.in/yaml.v3); both are read
here.
"""

from __future__ import annotations

from typing import TypeVar

from meshd.config import values
from meshd.config.key import Key

T = TypeVar("T")

ALIASES = frozenset({"kubevip.config", "kubevip.kubernetesleaderelection"})
"""Where Kairos' reader looks for kube-vip's settings; they mean the same as below `kubevip`."""

_IDLE = "of kube-vip's settings, this version hands on address, interface, image and lease times"

EIP = Key(
    path="kubevip.eip",
    read=values.address,
    about="The virtual address of the control plane: free, outside of any DHCP range, in the "
    "machines' network. Setting it switches kube-vip on.",
)
ENABLE = Key(
    path="kubevip.enable",
    read=values.flag,
    about="Whether kube-vip runs. Without it: exactly if kubevip.eip is set.",
)
INTERFACE = Key(
    path="kubevip.interface",
    read=values.interface,
    about="Network interface that carries the address. Without it, each node's own one is used.",
)
VERSION = Key(
    path="kubevip.version",
    read=values.text,
    about="Version of kube-vip's image.",
    default="v1.2.3",
)
IMAGE = Key(
    path="kubevip.image",
    read=values.text,
    about="kube-vip's image, without version.",
    default="ghcr.io/kube-vip/kube-vip",
)
STATIC_POD = Key(
    path="kubevip.static_pod",
    read=values.flag,
    about="Run kube-vip as a static pod instead of a DaemonSet, so that the address is there "
    "before any network plugin is.",
    default=False,
)
MANIFEST_URL = Key(
    path="kubevip.manifest_url",
    read=values.text,
    idle="meshd writes kube-vip's permissions itself",
    about="Take the manifest of kube-vip's permissions (RBAC) from here.",
)
LEASE = Key(
    path="kubevip.leaseDuration",
    read=values.count(1, 3600),
    about="Seconds after which another node may take the address from a silent holder.",
    default=5,
)
RENEW = Key(
    path="kubevip.renewDeadline",
    read=values.count(1, 3600),
    about="Seconds in which the holder must renew its lease, or give the address up.",
    default=3,
)
RETRY = Key(
    path="kubevip.retryPeriod",
    read=values.count(1, 3600),
    about="Seconds between two attempts to take or renew the lease.",
    default=1,
)
FIRST = (
    *(EIP, ENABLE, INTERFACE, VERSION, IMAGE),
    *(STATIC_POD, MANIFEST_URL, LEASE, RENEW, RETRY),
)

_FLAGS = {
    "enableARP": "Announce the address by ARP or NDP. meshd always does.",
    "enableBGP": "Announce the address by BGP.",
    "enableControlPlane": "Serve the control plane's address. meshd always does.",
    "enableServices": "Serve addresses of Services of type LoadBalancer, too.",
    "enableServicesElection": "Elect a holder for each Service by itself.",
    "enableNodeLabeling": "Label the node that holds the address.",
    "enableLoadBalancer": "Balance the control plane's connections by IPVS.",
    "enableLeaderElection": "Elect the holder by a Kubernetes Lease. meshd always does.",
    "enableEndpointSlices": "Watch EndpointSlices (older kube-vip).",
    "lbClassOnly": "Serve only Services of kube-vip's load-balancer class.",
    "ddns": "The address is a name that DHCP and DNS keep.",
    "singleNode": "There is one node only.",
    "startAsLeader": "Hold the address at once, before any election.",
    "detectControlPlane": "Look for the control plane on the loopback address.",
    "disableServiceUpdates": "Announce Services without writing their status.",
    "cleanRoutingTable": "Remove stale routes at the start.",
    "loInterfaceGlobalScope": "Give addresses on `lo` global scope.",
    "enableRoutingTable": "Announce the address by routes.",
    "enableWireguard": "Announce the address by WireGuard.",
    "enableEndpoints": "Watch Endpoints instead of EndpointSlices.",
    "EnableServiceSecurity": "Let iptables pass only the ports of a Service.",
    "lbClassNameLegacyHandling": "Match the load-balancer class as older kube-vip does.",
    "bgpAttachIPToInterface": "Give the interface the addresses that BGP announces.",
    "preserveVipOnLeadershipLoss": "Leave the address on the interface when the lease is lost.",
    "loseLeadership": "Give the lease up when the interface goes down.",
    "addPeersAsBackends": "Balance over the other kube-vips.",
    "allowInterfaceNotUp": "Start although the interface is down.",
    "skipDAD": "Take an IPv6 address without looking whether another has it.",
    "enableInternalSNAT": "Rewrite the source address of egress traffic inside the cluster.",
    "egressWithNftables": "Use nftables for egress.",
    "egressClean": "Remove old egress rules at the start.",
    "isDualStack": "Set by kube-vip itself.",
    "requireDualStack": "Set by kube-vip itself.",
    "enableUPNP": "Open the router's ports by UPnP.",
    "perServiceElectionOnDemand": "Elect a holder for a Service that asks for it.",
}
_COUNTS = {
    "logging": "Log level of kube-vip.",
    "port": "Port of the control plane.",
    "lbPort": "Port of the IPVS balancer.",
    "arpBroadcastRate": "Milliseconds between two ARP announcements.",
    "routingTableID": "Number of the routing table.",
    "routingTableType": "Type of the routes.",
    "routingProtocol": "Protocol number of the routes.",
    "backendHealthCheckInterval": "Seconds between two checks of an IPVS backend.",
    "loseLeadershipTimeoutSeconds": "Seconds after which an interface counts as down.",
    "healthCheckPort": "Port on which kube-vip says that it lives.",
    "dhcpBackoffAttempts": "How often DHCP is tried.",
}
_TEXTS = {
    "vip": "Older name of `address`.",
    "vipSubnet": "Prefix length that the address is given.",
    "vipCidr": "The same in older kube-vip.",
    "address": "The address; meshd sets it to kubevip.eip.",
    "namespace": "Namespace of kube-vip's pods.",
    "serviceNamespace": "Namespace of the Services that are watched.",
    "leaseName": "Name of the Lease.",
    "leaseNodeName": "Name of the node in the Lease.",
    "servicesLeaseName": "Name of the Services' Lease.",
    "servicesInterface": "Network interface for Services.",
    "lbClassName": "Name of the load-balancer class.",
    "lbForwardingMethod": "How IPVS forwards.",
    "prometheusHTTPServer": "Where kube-vip serves metrics.",
    "k8sConfigFile": "Path of the kubeconfig that kube-vip uses.",
    "dnsDualStackMode": "Which addresses of a name are used: first, ipv4, ipv6, dual.",
    "mirrorDestInterface": "Network interface that traffic is mirrored to.",
    "iptablesBackend": "nft or legacy.",
    "kubernetesAddr": "Address of the API server on this node.",
    "leaderElectionType": "kubernetes or etcd.",
    "annotations": "Node annotations that BGP is set up from.",
    "instanceName": "Tells several kube-vips of one machine apart.",
    "egressPodCidr": "Address range of pods, for egress.",
    "egressServiceCidr": "Address range of Services, for egress.",
    "dhcpDualStackMode": "Which addresses DHCP is asked for.",
    "configFile": "Path of a configuration file of kube-vip's own.",
    "debounceTime": "How long kube-vip waits for further events.",
}
_STRUCTURES = {
    "bgpConfig": "BGP of this machine.",
    "bgpPeerConfig": "The BGP peer.",
    "bgpPeers": "Further BGP peers.",
    "controlPlaneHealthCheck": "How the control plane is polled for BGP.",
    "etcd": "The etcd that leaderElectionType etcd uses.",
    "leaseAnnotations": "Annotations of the Lease.",
    "loadBalancers": "IPVS balancers.",
}

_SETTLED: dict[str, object] = {
    **dict.fromkeys(("enableARP", "enableControlPlane", "enableLeaderElection"), True),
    "port": 6443,
    "namespace": "kube-system",
    "leaderElectionType": "kubernetes",
}


def _own(name: str, read: values.Reader[T], about: str) -> Key[T]:
    return Key(
        path=f"kubevip.{name}",
        read=read,
        about=about,
        idle=_IDLE,
        settled=_SETTLED.get(name, False),
    )


OWN: tuple[Key[str | int | bool], ...] = (
    *(_own(name, values.flag, about) for name, about in _FLAGS.items()),
    *(_own(name, values.count(0, 2**31 - 1), about) for name, about in _COUNTS.items()),
    *(_own(name, values.text, about) for name, about in _TEXTS.items()),
)
"""kube-vip's settings by its own names."""

STRUCTURES = tuple(_own(name, values.anything, about) for name, about in _STRUCTURES.items())
"""Those of its settings that are lists or mappings."""

EVERY: tuple[Key[object], ...] = (*FIRST, *OWN, *STRUCTURES)
"""All keys below `kubevip`."""
