"""Where k3s keeps its files, below the data folder and /etc/rancher."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The two folders of one k3s and what lies in them."""

    data: Path
    etc: Path
    kubeconfig: Path

    @property
    def server(self) -> Path:
        return self.data / "server"

    @property
    def agent(self) -> Path:
        return self.data / "agent"

    @property
    def tls(self) -> Path:
        return self.server / "tls"

    @property
    def etcd(self) -> Path:
        return self.server / "db" / "etcd"

    @property
    def wal(self) -> Path:
        """The only proof that this server has an etcd of its own."""
        return self.etcd / "member" / "wal"

    @property
    def member_name(self) -> Path:
        return self.etcd / "name"

    @property
    def reset_flag(self) -> Path:
        """Left by a reset of the membership, until the next start; forbids a second one."""
        return self.server / "db" / "reset-flag"

    @property
    def passwd(self) -> Path:
        return self.server / "cred" / "passwd"

    @property
    def manifests(self) -> Path:
        return self.server / "manifests"

    @property
    def static_pods(self) -> Path:
        return self.agent / "pod-manifests"

    @property
    def node_password(self) -> Path:
        return self.etc / "node" / "password"


def write(path: Path, content: bytes | str, mode: int = 0o600) -> None:
    """Write a file whole, through a temporary one; makes its folders, 0700."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def link(path: Path, target: Path) -> None:
    """Make `path` a symbolic link to `target`, in place of whatever it was."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)
