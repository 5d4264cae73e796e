"""k3s' command line, configuration files and environment, as one record.

Precedence as in k3s: command line, configuration file, environment, default. A repeatable flag on
the command line replaces the file's whole list (docs.k3s.io/installation/configuration).
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from simulations.standin.layout import Layout
from simulations.standin.log import fatal

VERSION = "v1.34.1+standin"
VERSION_LINE = f"k3s version {VERSION} (stand-in, not k3s)"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SWITCHES = _words("""
    cluster-init cluster-reset debug alsologtostderr disable-agent disable-apiserver
    disable-cloud-controller disable-controller-manager disable-etcd disable-helm-controller
    disable-kube-proxy disable-network-policy disable-scheduler docker embedded-registry
    etcd-disable-snapshots etcd-expose-metrics etcd-s3 etcd-snapshot-compress flannel-external-ip
    flannel-ipv6-masq multi-cluster-cidr prefer-bundled-bin protect-kernel-defaults rootless
    secrets-encryption selinux servicelb-namespace supervisor-metrics tls-san-security with-node-id
    disable-apiserver-lb node-name-from-cloud-provider-metadata nonroot-devices
    default-runtime-only
""")
_LISTS = _words("""
    cluster-cidr cluster-dns disable etcd-arg image-credential-provider-arg kube-apiserver-arg
    kube-cloud-controller-manager-arg kube-controller-manager-arg kube-proxy-arg
    kube-scheduler-arg kubelet-arg node-external-dns node-external-ip node-internal-dns node-ip
    node-label node-taint service-cidr tls-san
""")
_VALUES = _words("""
    advertise-address advertise-port agent-token agent-token-file airgap-extra-registry
    bind-address cluster-domain cluster-reset-restore-path config container-runtime-endpoint
    containerd-cert datastore-cafile datastore-certfile datastore-endpoint datastore-keyfile
    data-dir default-local-storage-path default-runtime disable-default-registry-endpoint
    egress-selector-mode enable-pprof etcd-snapshot-dir etcd-snapshot-name
    etcd-snapshot-retention etcd-snapshot-schedule-cron flannel-backend flannel-cni-conf
    flannel-conf flannel-iface helm-job-image https-listen-port image-credential-provider-bin-dir
    image-credential-provider-config image-service-endpoint kine-tls kube-cloud-controller-manager
    lb-server-port log node-name pause-image private-registry
    resolv-conf server service-node-port-range snapshotter system-default-registry
    secrets-encryption-provider token token-file v vmodule vpn-auth vpn-auth-file
    write-kubeconfig write-kubeconfig-group write-kubeconfig-mode
""")
_SHORT = {"t": "token", "s": "server", "d": "data-dir", "c": "config", "o": "write-kubeconfig"}
_ENVIRONMENT = {
    "K3S_TOKEN": "token",
    "K3S_TOKEN_FILE": "token-file",
    "K3S_AGENT_TOKEN": "agent-token",
    "K3S_AGENT_TOKEN_FILE": "agent-token-file",
    "K3S_URL": "server",
    "K3S_CLUSTER_INIT": "cluster-init",
    "K3S_NODE_NAME": "node-name",
    "K3S_DATA_DIR": "data-dir",
    "K3S_KUBECONFIG_OUTPUT": "write-kubeconfig",
    "K3S_KUBECONFIG_MODE": "write-kubeconfig-mode",
}
# Must be equal on all servers (k3s pkg/daemons/config/types.go, CriticalControlArgs).
_CRITICAL = {
    "ClusterDNSs": "cluster-dns",
    "ClusterIPRanges": "cluster-cidr",
    "ServiceIPRanges": "service-cidr",
    "ClusterDomain": "cluster-domain",
    "DisableCCM": "disable-cloud-controller",
    "DisableHelmController": "disable-helm-controller",
    "DisableNPC": "disable-network-policy",
    "EgressSelectorMode": "egress-selector-mode",
    "EmbeddedRegistry": "embedded-registry",
    "EncryptSecrets": "secrets-encryption",
    "FlannelBackend": "flannel-backend",
    "FlannelExternalIP": "flannel-external-ip",
    "FlannelIPv6Masq": "flannel-ipv6-masq",
}
_DEFAULTS = {
    "cluster-cidr": ("10.42.0.0/16",),
    "service-cidr": ("10.43.0.0/16",),
    "cluster-dns": ("10.43.0.10",),
    "cluster-domain": ("cluster.local",),
    "egress-selector-mode": ("agent",),
    "flannel-backend": ("vxlan",),
    "data-dir": ("/var/lib/rancher/k3s",),
    "write-kubeconfig-mode": ("0600",),
    "https-listen-port": ("6443",),
}
_Settings = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for. Token texts are as given: bare or `K10<hash>::<user>:<password>`."""

    command: Literal["server", "agent"]
    layout: Layout
    server: str | None
    token: str | None
    agent_token: str | None
    cluster_init: bool
    cluster_reset: bool
    restore_path: Path | None
    disable_agent: bool
    node_name: str
    node_ips: tuple[str, ...]
    flannel_iface: str | None
    tls_san: tuple[str, ...]
    node_labels: tuple[str, ...]
    node_taints: tuple[str, ...]
    etcd_args: tuple[str, ...]
    port: int
    kubeconfig_mode: int
    datastore: str | None
    critical: Mapping[str, str]


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Read `server …` or `agent …` and its files; raises Exit as k3s does on a wrong flag."""
    command = argv[0]
    if command not in {"server", "agent"}:
        raise fatal(f"stand-in: no such command: {command}")
    etc = Path(environment.get("STANDIN_ETC", "/etc/rancher"))
    line = _command_line(argv[1:])
    named = line.get("config", (environment.get("K3S_CONFIG_FILE", ""),))[-1]
    file = _configuration(Path(named) if named else etc / "k3s" / "config.yaml")
    ambient = {_ENVIRONMENT[k]: (v,) for k, v in environment.items() if k in _ENVIRONMENT and v}
    settings = {**_DEFAULTS, **ambient, **file, **line}

    def last(key: str) -> str | None:
        values = settings.get(key, ())
        return values[-1] if values else None

    default_kubeconfig = str(etc / "k3s" / "k3s.yaml")
    return Options(
        command="server" if command == "server" else "agent",
        layout=Layout(
            data=Path(last("data-dir") or "").absolute(),
            etc=etc,
            kubeconfig=Path(last("write-kubeconfig") or default_kubeconfig).absolute(),
        ),
        server=last("server"),
        token=_secret(last("token"), last("token-file")),
        agent_token=_secret(last("agent-token"), last("agent-token-file")),
        cluster_init=last("cluster-init") == "true",
        cluster_reset=last("cluster-reset") == "true",
        restore_path=Path(path) if (path := last("cluster-reset-restore-path")) else None,
        disable_agent=last("disable-agent") == "true",
        node_name=(last("node-name") or platform.node()).lower(),
        node_ips=settings.get("node-ip", ()),
        flannel_iface=last("flannel-iface"),
        tls_san=settings.get("tls-san", ()),
        node_labels=settings.get("node-label", ()),
        node_taints=settings.get("node-taint", ()),
        etcd_args=settings.get("etcd-arg", ()),
        port=int(last("https-listen-port") or "6443"),
        kubeconfig_mode=int(last("write-kubeconfig-mode") or "0600", 8),
        datastore=last("datastore-endpoint"),
        critical={name: ",".join(settings.get(flag, ())) for name, flag in _CRITICAL.items()}
        | {"DisableServiceLB": str("servicelb" in settings.get("disable", ())).lower()},
    )


def _command_line(arguments: Sequence[str]) -> _Settings:
    settings: _Settings = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.lstrip("-").partition("=")
        name = _SHORT.get(name, name)
        if not argument.startswith("-") or not _known(name):
            sys.stdout.write(f"Incorrect Usage: flag provided but not defined: -{name}\n")
            raise fatal(f"Error: flag provided but not defined: -{name}")
        if not equals:
            value = "true" if name in _SWITCHES else _following(name, rest)
        _give(settings, name, value)
    return settings


def _following(name: str, rest: list[str]) -> str:
    if not rest:
        raise fatal(f"Error: flag needs an argument: -{name}")
    return rest.pop(0)


def _give(settings: _Settings, name: str, value: str) -> None:
    if name in _LISTS:
        parts = (value,) if name.endswith("-arg") else tuple(value.split(","))
        settings[name] = settings.get(name, ()) + parts
    else:
        settings[name] = (value.lower() if name in _SWITCHES else value,)


def _configuration(path: Path) -> _Settings:
    """Merge the file and its folder `<file>.d` in name order: the last wins, `key+` appends."""
    settings: _Settings = {}
    folder = path.with_name(path.name + ".d")
    parts = sorted(p for p in folder.glob("*") if p.suffix in {".yaml", ".yml"})
    for part in [p for p in (path, *parts) if p.is_file()]:
        try:
            content = yaml.safe_load(part.read_bytes()) or {}
        except yaml.YAMLError as error:
            raise fatal(f"failed to parse config {part}: {error}") from error
        for key, value in content.items():
            name = str(key).removesuffix("+")
            if not _known(name):
                continue
            if not str(key).endswith("+"):
                settings.pop(name, None)
            for item in value if isinstance(value, list) else [value]:
                _give(settings, name, _text(item))
    return settings


def _known(name: str) -> bool:
    return name in _SWITCHES or name in _LISTS or name in _VALUES


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secret(given: str | None, file: str | None) -> str | None:
    if given is not None or file is None:
        return given
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise fatal(f"open {file}: {(error.strerror or str(error)).lower()}") from error
