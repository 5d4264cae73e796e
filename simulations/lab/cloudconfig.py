"""The laboratory's cloud-config: one file with a token, put on every node byte for byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from meshd.config import encode_token, new_token
from meshd.errors import MeshdError

# A node here has neither a container runtime nor cgroups of its own, and a server needs none of
# what would run in pods.
_REAL_K3S_ARGS = (
    "--disable-agent",
    "--disable=coredns,local-storage,metrics-server,servicelb,traefik",
    "--disable-helm-controller",
    "--disable-network-policy",
    "--etcd-disable-snapshots",
    "--flannel-backend=none",
)


def generate(*, nodes: int, control_plane: int, real_k3s: bool, vip: str) -> str:
    """Return a cloud-config in Kairos' keys.

    Args:
        nodes: machines at first; the token's bound leaves room for at least these.
        control_plane: odd, 1 to 7.
        real_k3s: k3s is the real one, whose servers run without an agent here.
        vip: the virtual address.

    Raises:
        ConfigError: a size is refused.
    """
    bound = max(nodes, 2 * control_plane - 1)
    token = new_token(
        control_plane=control_plane, nodes_max=bound, seeds=(), random_bytes=os.urandom
    )
    content: dict[str, Any] = {
        "p2p": {
            "network_token": encode_token(token),
            "auto": {"ha": {"enable": control_plane > 1, "master_nodes": control_plane - 1}},
        },
        "kubevip": {"eip": vip, "interface": "eth0"},
    }
    if real_k3s:
        content["k3s"] = {"args": list(_REAL_K3S_ARGS)}
    return "#cloud-config\n" + yaml.safe_dump(content, sort_keys=False)


def read(path: Path) -> str:
    """Return a user's file as it is.

    Raises:
        MeshdError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise MeshdError(
            "MESH-8014", f"{path} cannot be read: {why}", fix="name a cloud-config file"
        ) from None


def shape(text: str) -> tuple[int | None, str | None]:
    """Return (control-plane size, VIP) where the file says so itself.

    Whether the file is right is for the daemons to say; here nothing is refused.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return None, None
    masters = _at(content, "p2p", "auto", "ha", "master_nodes")
    vip = _at(content, "kubevip", "eip")
    size = masters + 1 if isinstance(masters, int) else None
    return size, vip if isinstance(vip, str) and vip else None


def _at(content: object, *keys: str) -> object:
    for key in keys:
        if not isinstance(content, dict):
            return None
        content = content.get(key)
    return content
