"""What lets a node of the laboratory run pods: programs, images, the runtime's and CNI's files.

A real k3s gets folders of its own for all that it, containerd and CNI write, and files in place of
the kernel's settings that a kubelet changes for the whole machine.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from meshd.config.schema import KubeVip
from meshd.errors import MeshdError
from simulations.lab.places import NodePlaces
from simulations.lab.shell import PATH

# Folder on a node: folder of its disk. /run/k3s is on the node's own /run.
DISKS = {
    Path("/var/lib/kubelet"): "var-lib-kubelet",
    Path("/var/lib/cni"): "var-lib-cni",
    Path("/etc/cni"): "etc-cni",
    Path("/var/log/pods"): "var-log-pods",
    Path("/var/log/containers"): "var-log-containers",
}
IMAGES = Path("/var/lib/rancher/k3s/agent/images")
"""k3s imports every archive in it when it starts."""

# The kubelet sets these, and they are the whole machine's (kubernetes
# pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables).
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

# Program: the Debian package that has it.
PROGRAMS = {
    "runc": "runc",
    "containerd": "containerd",
    "containerd-shim-runc-v2": "containerd",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
}
PLUGINS = ("bridge", "host-local", "loopback", "portmap")
PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.zst", ".tzst", ".tar.lz4")
_CAP_SYS_RESOURCE = 24  # linux/capability.h
_WITHOUT = "or take servers without pods: --no-agents"


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What this host gives to its nodes.

    Args:
        plugins: the folder of CNI's programs.
        images: the folder of image archives.
        pause: the name of the image that keeps a pod's namespaces.
        keeps_oom_scores: the host withholds CAP_SYS_RESOURCE, without which no process may be made
            less likely to be killed when memory is short.
    """

    plugins: str
    images: str
    pause: str
    keeps_oom_scores: bool


def find_runtime(k3s: Path, images: Path | None) -> Runtime:
    """Return what pods need.

    Args:
        k3s: the binary; `images/` beside it is where images are looked for if none are named.
        images: the folder of image archives.

    Raises:
        MeshdError: something is missing.
    """
    missing = {package for name, package in PROGRAMS.items() if not shutil.which(name, path=PATH)}
    folders = [folder for folder in PLUGIN_FOLDERS if _has_plugins(folder)]
    if not folders:
        missing.add("containernetworking-plugins")
    if missing:
        raise MeshdError(
            "MESH-8019",
            f"nodes that run pods need what is not installed: {', '.join(sorted(missing))}",
            fix=f"apt-get install {' '.join(sorted(missing))}; {_WITHOUT}",
        )
    folder = (images or k3s.resolve().parent / "images").absolute()
    return Runtime(
        plugins=str(folders[0]),
        images=str(folder),
        pause=_pause_image(folder),
        keeps_oom_scores=not may_raise_limits(
            Path("/proc/self/status").read_text(encoding="utf-8")
        ),
    )


def provision(node: NodePlaces, runtime: Runtime) -> None:
    """Write what containerd and CNI read on a node, as its installation would have."""
    agent = node.k3s_folder / "agent"
    containerd = agent / "etc" / "containerd"
    containerd.mkdir(parents=True, exist_ok=True)
    (agent / IMAGES.name).mkdir(exist_ok=True)
    for name in ("config.toml.tmpl", "config-v3.toml.tmpl"):  # k3s before and since containerd 2.
        (containerd / name).write_text(containerd_config(runtime), encoding="utf-8")
    network = node.disk / DISKS[Path("/etc/cni")] / "net.d"
    network.mkdir(parents=True, exist_ok=True)
    text = json.dumps(pod_network(node.pod_subnet), indent=1) + "\n"
    (network / "10-laboratory.conflist").write_text(text, encoding="utf-8")


def containerd_config(runtime: Runtime) -> str:
    """Return a configuration that containerd 1.6 and later read, in k3s' folders."""
    restrict = str(runtime.keeps_oom_scores).lower()
    return f"""\
version = 2
root = "/var/lib/rancher/k3s/agent/containerd"
state = "/run/k3s/containerd"
[grpc]
  address = "/run/k3s/containerd/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/rancher/k3s/agent/containerd"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = {restrict}
  sandbox_image = "{runtime.pause}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{runtime.plugins}"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def pod_network(subnet: str) -> dict[str, object]:
    """Return a CNI network: a bridge on the node, whose pods reach others through it."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet}]],
        "routes": [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True}
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            bridge | {"ipam": addresses},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def tags_in(archive: Path) -> tuple[str, ...]:
    """Return the names of the images in an archive of `docker save`; none if it is another kind."""
    try:
        with tarfile.open(archive) as opened:
            member = opened.extractfile("manifest.json")
            content = json.load(member) if member is not None else []
    except (OSError, KeyError, ValueError, tarfile.TarError):
        return ()
    records = [one for one in content if isinstance(one, Mapping)]
    return tuple(str(tag) for record in records for tag in record.get("RepoTags") or ())


def _pause_image(folder: Path) -> str:
    """Return the name of the pause image; raises MeshdError if an image is missing."""
    archives = sorted(p for p in folder.glob("*") if p.name.endswith(_ARCHIVES))
    tags = [tag for archive in archives for tag in tags_in(archive)]
    pause = [tag for tag in tags if tag.partition(":")[0].endswith("pause")]
    defaults = KubeVip(address="")
    wanted = f"{defaults.image}:{defaults.version}"
    missing = ([] if pause else ["a pause image"]) + ([] if wanted in tags else [wanted])
    if missing:
        raise MeshdError(
            "MESH-8020",
            f"nodes that run pods need images that are not in {folder}: {', '.join(missing)}",
            cause=f"found there: {_listed(tags)}" if archives else "no image archive is there",
            fix="put archives made by `docker save` there, or name their folder with --images or "
            f"MESHD_K3S_IMAGES; {_WITHOUT}",
        )
    return pause[0]


def _listed(tags: Iterable[str]) -> str:
    return ", ".join(sorted(tags)) or "archives of no kind that can be read here"


def _has_plugins(folder: Path) -> bool:
    return all((folder / name).exists() for name in PLUGINS)


def may_raise_limits(status: str) -> bool:
    """Whether the text of /proc/PID/status has CAP_SYS_RESOURCE among the effective ones."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    raise AssertionError("proc(5) promises the line")
