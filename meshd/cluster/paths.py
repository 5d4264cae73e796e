"""Where k3s keeps its files; tests and unusual installations move them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

API_PORT = 6443
SERVER_PORTS = (API_PORT, 2379, 2380, 10250)
"""What a server listens on for other machines: API, etcd's clients and peers, kubelet."""

_MANIFEST_ENDINGS = frozenset({".json", ".yaml", ".yml"})

AGENT_PORT = 6444  # Of the load balancer inside a k3s agent, on 127.0.0.1.


@dataclass(frozen=True, slots=True, kw_only=True)
class K3sPaths:
    """k3s' folders. The defaults are k3s' own (docs.k3s.io, "Configuration Options").

    Args:
        config_dir: holds `config.yaml`, `config.yaml.d/` and the administrator's `k3s.yaml`.
        data_dir: holds `server/` and `agent/`.
        binary: the k3s to run; None looks for `$MESHD_K3S_BIN`, `k3s` on PATH, /usr/local/bin/k3s.
    """

    config_dir: Path = Path("/etc/rancher/k3s")
    data_dir: Path = Path("/var/lib/rancher/k3s")
    binary: Path | None = None

    @property
    def config(self) -> Path:
        return self.config_dir / "config.yaml"

    @property
    def drop_in(self) -> Path:
        return self.config_dir / "config.yaml.d" / "50-meshd.yaml"

    @property
    def kubeconfig(self) -> Path:
        return self.config_dir / "k3s.yaml"

    @property
    def server(self) -> Path:
        return self.data_dir / "server"

    @property
    def agent(self) -> Path:
        return self.data_dir / "agent"

    @property
    def tls(self) -> Path:
        return self.server / "tls"

    @property
    def manifests(self) -> Path:
        return self.server / "manifests"

    @property
    def etcd_log(self) -> Path:
        """etcd's write-ahead log: the folder that makes k3s start etcd whatever its flags say."""
        return self.server / "db" / "etcd" / "member" / "wal"

    @property
    def sqlite(self) -> Path:
        return self.server / "db" / "state.db"

    def users_manifests(self) -> list[str]:
        """Return the manifests that lie there before k3s first starts, relative, sorted."""
        return sorted(
            str(path.relative_to(self.manifests))
            for path in self.manifests.rglob("*")
            if path.suffix in _MANIFEST_ENDINGS and not path.with_name(f"{path.name}.skip").exists()
        )
