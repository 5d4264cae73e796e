"""The laboratory's cloud-config: one file with a token, put on every node byte for byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import yaml

from meshd.config import encode_token, new_token
from meshd.errors import MeshdError

Kind = Literal["stand-in", "servers", "whole"]
"""What plays or is k3s: the stand-in, a real one's servers without agents, or whole nodes."""

# Without what would need images that the laboratory has none of, and without flannel, which is no
# program of its own: nodes that run pods have a bridge each.
_REAL_K3S_ARGS = (
    "--disable=coredns,local-storage,metrics-server,servicelb,traefik",
    "--disable-helm-controller",
    "--disable-network-policy",
    "--etcd-disable-snapshots",
    "--flannel-backend=none",
)
# The laboratory makes plain cgroups, also where systemd runs; its disks are as full as the host's.
AGENT_ARGS = (
    "--kubelet-arg=cgroup-driver=cgroupfs",
    "--kubelet-arg=eviction-hard=imagefs.available<1%,nodefs.available<1%",
    "--kubelet-arg=fail-swap-on=false",
)
SERVER_ARGS = (*_REAL_K3S_ARGS, *AGENT_ARGS)


def generate(
    *, nodes: int, control_plane: int, k3s: Kind, vip: str, nodes_max: int | None = None
) -> str:
    """Return a cloud-config in Kairos' keys.

    Args:
        nodes: machines at first; the token's bound leaves room for at least these.
        control_plane: odd, 1 to 7.
        k3s: what will run.
        vip: the virtual address.
        nodes_max: the token's bound, if it is to be another.

    Raises:
        ConfigError: a size is refused.
    """
    bound = nodes_max or max(nodes, 2 * control_plane - 1)
    token = new_token(
        control_plane=control_plane, nodes_max=bound, seeds=(), random_bytes=os.urandom
    )
    content: dict[str, Any] = {
        "p2p": {
            "network_token": encode_token(token),
            "auto": {"ha": {"enable": control_plane > 1, "master_nodes": control_plane - 1}},
        },
        "kubevip": {"eip": vip},
    }
    if k3s == "servers":
        content["k3s"] = {"args": ["--disable-agent", *_REAL_K3S_ARGS]}
    elif k3s == "whole":
        content["k3s"] = {"args": list(SERVER_ARGS)}
        content["k3s-agent"] = {"args": list(AGENT_ARGS)}
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
