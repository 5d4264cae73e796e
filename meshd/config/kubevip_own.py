"""kube-vip's own settings by its own names: which become variables of its container, and which not.

From kube-vip v1.2.3: the names are those of pkg/kubevip/config_types.go, the variables those of
config_envvar.go, and a variable is named here only if config_environment.go reads it. What meshd
keeps to itself has a reason: that one machine has the address at a time and meshd can tell which.
"""

from __future__ import annotations

import json
from typing import TypeVar

from meshd.config import values
from meshd.config.key import Key

T = TypeVar("T")
Value = str | int | bool | tuple[tuple[str, str], ...]

_PORTS = values.count(1, 65535)
_WHOLE = values.count(0, 2**31 - 1)

_FLAGS = {
    "enableServicesElection": ("svc_election", "Elect a holder for each Service by itself."),
    "lbClassNameLegacyHandling": (
        "lb_class_legacy_handling",
        "Match the load-balancer class as older kube-vip does.",
    ),
    "EnableServiceSecurity": (
        "enable_service_security",
        "Let iptables pass only the ports of a Service.",
    ),
    "perServiceElectionOnDemand": (
        "per_service_election_on_demand",
        "Elect a holder for a Service that asks for it.",
    ),
    "disableServiceUpdates": (
        "disable_service_updates",
        "Announce Services without writing their status.",
    ),
    "enableEndpoints": ("enable_endpoints", "Watch Endpoints instead of EndpointSlices."),
    "enableUPNP": ("enable_upnp", "Open the router's ports by UPnP."),
    "enableNodeLabeling": ("enable_node_labeling", "Label the node that holds the address."),
    "enableLoadBalancer": ("lb_enable", "Balance the control plane's connections by IPVS."),
    "loInterfaceGlobalScope": ("vip_interfaceloglobal", "Give addresses on `lo` global scope."),
    "loseLeadership": ("vip_loseleadership", "Give the lease up when the interface goes down."),
    "allowInterfaceNotUp": (
        "vip_allow_interface_not_up",
        "Start although the interface is down.",
    ),
    "skipDAD": ("vip_skipdad", "Take an IPv6 address without looking whether another has it."),
    "enableInternalSNAT": (
        "egress_enableinternalsnat",
        "Rewrite the source address of egress traffic inside the cluster.",
    ),
    "egressWithNftables": ("egress_withnftables", "Use nftables for egress."),
    "egressClean": ("egress_clean", "Remove old egress rules at the start."),
}
_COUNTS = {
    "logging": ("vip_loglevel", _WHOLE, "Log level of kube-vip."),
    "lbPort": ("lb_port", _PORTS, "Port of the IPVS balancer."),
    "arpBroadcastRate": (
        "vip_arpRate",
        _WHOLE,
        "Milliseconds between two ARP announcements.",
    ),
    "backendHealthCheckInterval": (
        "backend_health_check_interval",
        _WHOLE,
        "Seconds between two checks of an IPVS backend.",
    ),
    "loseLeadershipTimeoutSeconds": (
        "vip_loseleadership_timeout_seconds",
        _WHOLE,
        "Seconds after which an interface counts as down.",
    ),
    "healthCheckPort": (
        "health_check_port",
        values.count(1024, 65535),
        "Port on which kube-vip says that it lives.",
    ),
    "dhcpBackoffAttempts": ("dhcp_backoff_attempts", _WHOLE, "How often DHCP is tried."),
}
_TEXTS = {
    "serviceNamespace": ("svc_namespace", "Namespace of the Services that are watched."),
    "servicesLeaseName": ("svc_leasename", "Name of the Services' Lease."),
    "servicesInterface": ("vip_servicesinterface", "Network interface for Services."),
    "lbClassName": ("lb_class_name", "Name of the load-balancer class."),
    "lbForwardingMethod": (
        "lb_fwdmethod",
        "How IPVS forwards; with `masquerade` the container is privileged.",
    ),
    "prometheusHTTPServer": ("prometheus_server", "Where kube-vip serves metrics."),
    "dnsDualStackMode": (
        "dns_mode",
        "Which addresses of a name are used: first, ipv4, ipv6, dual.",
    ),
    "dhcpDualStackMode": ("dhcp_mode", "Which addresses DHCP is asked for."),
    "mirrorDestInterface": (
        "mirror_dest_interface",
        "Network interface that traffic is mirrored to.",
    ),
    "iptablesBackend": ("iptables_backend", "nft or legacy."),
    "instanceName": ("instance_name", "Tells several kube-vips of one machine apart."),
    "egressPodCidr": ("egress_podcidr", "Address range of pods, for egress."),
    "egressServiceCidr": ("egress_servicecidr", "Address range of Services, for egress."),
}

_ONE_HOLDER = "meshd has the address announced by ARP and held under one Lease"
_NO_BGP = "it is of use with enableBGP only, which meshd leaves off"
_NO_ROUTES = "it is of use with enableRoutingTable only, which meshd leaves off"
_EIP = "the address is kubevip.eip"
_SINGLE = "meshd takes the address away where it must not be, and looks for a single one, without "
_SINGLE += "a network (/32 or /128)"
_SINGLES = ("32", "/32", "128", "/128")
_LEASE = "meshd looks for the holder in the Lease plndr-cp-lock of kube-system, by its node's name"
_OWN_API = "kube-vip on a server asks the API of that server"
_UNREAD = "kube-vip v1.2.3 reads it from no variable"

_KEPT: dict[str, tuple[values.Reader[object], str, str, tuple[object, ...]]] = {
    # Name: reader, what it is, why it has no effect, values that say what is so anyway.
    "enableARP": (values.flag, "Announce the address by ARP or NDP.", _ONE_HOLDER, (True,)),
    "enableLeaderElection": (
        values.flag,
        "Elect the holder by a Kubernetes Lease.",
        _ONE_HOLDER,
        (True,),
    ),
    "enableControlPlane": (
        values.flag,
        "Serve the control plane's address.",
        "kubevip.enable says whether it is served",
        (True,),
    ),
    "leaderElectionType": (values.text, "kubernetes or etcd.", _ONE_HOLDER, ("kubernetes",)),
    "etcd": (values.anything, "The etcd that leaderElectionType etcd uses.", _ONE_HOLDER, ()),
    "enableBGP": (values.flag, "Announce the address by BGP.", _ONE_HOLDER, (False,)),
    "enableRoutingTable": (values.flag, "Announce the address by routes.", _ONE_HOLDER, (False,)),
    "enableWireguard": (values.flag, "Announce the address by WireGuard.", _ONE_HOLDER, (False,)),
    "singleNode": (values.flag, "There is one node only.", _ONE_HOLDER, (False,)),
    "startAsLeader": (
        values.flag,
        "Hold the address at once, before any election.",
        _ONE_HOLDER,
        (False,),
    ),
    "preserveVipOnLeadershipLoss": (
        values.flag,
        "Leave the address on the interface when the lease is lost.",
        "an address that stays behind would be on two machines",
        (False,),
    ),
    "bgpConfig": (values.anything, "BGP of this machine.", _NO_BGP, ()),
    "bgpPeerConfig": (values.anything, "The BGP peer.", _NO_BGP, ()),
    "bgpPeers": (values.anything, "Further BGP peers.", _NO_BGP, ()),
    "bgpAttachIPToInterface": (
        values.flag,
        "Give the interface the addresses that BGP announces.",
        _NO_BGP,
        (False,),
    ),
    "controlPlaneHealthCheck": (
        values.anything,
        "How the control plane is polled for BGP.",
        _NO_BGP,
        (),
    ),
    "annotations": (values.text, "Node annotations that BGP is set up from.", _NO_BGP, ()),
    "routingTableID": (_WHOLE, "Number of the routing table.", _NO_ROUTES, (0,)),
    "routingTableType": (_WHOLE, "Type of the routes.", _NO_ROUTES, (0,)),
    "routingProtocol": (_WHOLE, "Protocol number of the routes.", _NO_ROUTES, (0,)),
    "cleanRoutingTable": (
        values.flag,
        "Remove stale routes at the start.",
        _NO_ROUTES,
        (False,),
    ),
    "address": (values.text, "The address, in kube-vip's words.", _EIP, ()),
    "vip": (values.text, "Older name of `address`.", _EIP, ()),
    "ddns": (
        values.flag,
        "The address is a name that DHCP and DNS keep.",
        _EIP,
        (False,),
    ),
    "vipSubnet": (values.text, "Prefix length that the address is given.", _SINGLE, _SINGLES),
    "vipCidr": (values.text, "The same in older kube-vip.", _SINGLE, _SINGLES),
    "port": (_PORTS, "Port of the control plane.", "k3s serves its API at port 6443", (6443,)),
    "namespace": (values.text, "Namespace of the Lease.", _LEASE, ("kube-system",)),
    "leaseName": (values.text, "Name of the Lease.", _LEASE, ("plndr-cp-lock",)),
    "leaseNodeName": (values.text, "Name of the node in the Lease.", _LEASE, ()),
    "k8sConfigFile": (values.text, "Path of the kubeconfig that kube-vip uses.", _OWN_API, ()),
    "kubernetesAddr": (values.text, "Address of the API server on this node.", _OWN_API, ()),
    "detectControlPlane": (
        values.flag,
        "Look for the control plane on the loopback address.",
        _OWN_API,
        (False, True),
    ),
    "configFile": (
        values.text,
        "Path of a configuration file of kube-vip's own.",
        "it could say otherwise than meshd",
        (),
    ),
    "enableEndpointSlices": (
        values.flag,
        "Watch EndpointSlices (older kube-vip).",
        "kube-vip v1.2.3 does by itself, unless enableEndpoints is set",
        (True,),
    ),
    "addPeersAsBackends": (values.flag, "Balance over the other kube-vips.", _UNREAD, (False,)),
    "isDualStack": (values.flag, "Set by kube-vip itself.", _UNREAD, (False,)),
    "requireDualStack": (values.flag, "Set by kube-vip itself.", _UNREAD, (False,)),
    "loadBalancers": (values.anything, "IPVS balancers.", _UNREAD, ()),
    "debounceTime": (
        values.text,
        "How long kube-vip waits for further events.",
        _UNREAD,
        (),
    ),
}


def _own(name: str, read: values.Reader[T], about: str) -> Key[T]:
    return Key(path=f"kubevip.{name}", read=read, about=about)


SERVICES = _own(
    "enableServices",
    values.flag,
    "Serve addresses of Services of type LoadBalancer, too. It stays off while k3s' own service "
    "balancer runs, unless lbClassOnly is set.",
)
CLASS_ONLY = _own(
    "lbClassOnly", values.flag, "Serve only Services of kube-vip's load-balancer class."
)
PASSED: dict[str, Key[Value]] = {
    "svc_enable": SERVICES,
    "lb_class_only": CLASS_ONLY,
    **{variable: _own(name, values.flag, about) for name, (variable, about) in _FLAGS.items()},
    **{variable: _own(name, read, about) for name, (variable, read, about) in _COUNTS.items()},
    **{variable: _own(name, values.text, about) for name, (variable, about) in _TEXTS.items()},
    "vip_leaseannotations": _own(
        "leaseAnnotations", values.text_table, "Annotations of the Lease."
    ),
}
"""Settings that become variables of kube-vip's container, by the variable's name."""

_DECIDED: tuple[Key[object], ...] = tuple(
    Key(path=f"kubevip.{name}", read=read, about=about, idle=why, settled=settled)
    for name, (read, about, why, settled) in _KEPT.items()
)

OWN: tuple[Key[object], ...] = (*PASSED.values(), *_DECIDED)
"""All of kube-vip's settings."""


def worded(value: Value) -> str:
    """Return a value as kube-vip reads it from a variable."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(dict(value)) if isinstance(value, tuple) else str(value)
