"""Sets the data of an abandoned cluster aside, and ends what still runs in its containers.

Nothing is deleted. Each of k3s' folders goes by one rename that takes meshd's mark along, so after
a crash at any line the data is still known to be of that cluster, and the next call goes on. What
the user had put there (images, containerd's templates, manifests) is taken back for the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from meshd.cluster.mark import Mark, read_mark
from meshd.cluster.paths import K3sPaths
from meshd.holder import processes
from meshd.whole_file import free_name, make_folder, sync_folder, write_whole

_USERS = (
    "images",  # To be imported.
    "pod-manifests",
    "etc/containerd/config.toml.tmpl",
    "etc/containerd/config-v3.toml.tmpl",
)
"""What a user puts below k3s' agent folder (docs.k3s.io, "Advanced Options")."""

_POD_MOUNTS = ("/run/k3s/containerd", "/var/lib/kubelet/pods", "/run/netns/cni-")
"""Where k3s' own k3s-killall.sh looks for what containers leave mounted."""


def aside_folder(paths: K3sPaths, cluster_id: str) -> Path:
    """Return where the data of an abandoned cluster lies."""
    return paths.data_dir / "set-aside" / cluster_id


def set_aside(paths: K3sPaths, cluster_id: str, *, to: Path | None = None) -> bool:
    """Move everything of the cluster aside; k3s of it must not run. Return whether there was any.

    To `to`, or where the data of an abandoned cluster lies.

    Raises:
        OSError: the disk refuses; the next call goes on.
    """
    found = False
    aside = to or aside_folder(paths, cluster_id)
    # The server's folder goes last: its mark is what forbids a start.
    for folder in (paths.agent, paths.server):
        mark = read_mark(folder)
        if not isinstance(mark, Mark) or mark.cluster_id != cluster_id:
            continue
        if not found:
            # What starts k3s by hand must not find the abandoned cluster's orders.
            paths.drop_in.unlink(missing_ok=True)
            end_containers(paths)
            make_folder(aside, mode=0o700)
            if paths.kubeconfig.exists():
                shutil.move(paths.kubeconfig, free_name(aside / paths.kubeconfig.name))
        found = True
        folder.rename(free_name(aside / folder.name))
        sync_folder(aside)
        sync_folder(folder.parent)
    done = aside / "given-back"
    if not aside.is_dir() or done.exists():
        return found  # What a user removed since must not come back.
    for folder in sorted(aside.glob("agent*")):
        _take_back(folder, paths.agent, _USERS)
    for folder in sorted(aside.glob("server*")):
        mark = read_mark(folder)
        if isinstance(mark, Mark):
            _take_back(folder / "manifests", paths.manifests, mark.held)
    write_whole(done, b"")
    return found


def end_containers(paths: K3sPaths) -> None:
    """Kill all containers of k3s on this machine, and undo their mounts."""
    for shim in _shims():
        for pid in (*processes.descendants(shim), shim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for mount in sorted(_mounts(paths), reverse=True):  # What is mounted inside comes first.
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def _shims() -> Iterator[int]:
    """Yield containerd's shims of this k3s: each outlives containerd and holds one pod."""
    for pid, _ in processes.all_processes():
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        is_shim = Path(os.fsdecode(arguments[0])).name.startswith("containerd-shim")
        if is_shim and b"k8s.io" in arguments and processes.shares_network(pid):
            yield pid


def _mounts(paths: K3sPaths) -> Iterator[str]:
    below = (*_POD_MOUNTS, f"{paths.agent}/", f"{paths.server}/")
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        at = line.split(" ")[1].encode().decode("unicode_escape")  # proc(5): octal for spaces.
        if at.startswith(below):
            yield at


def _take_back(aside: Path, live: Path, names: tuple[str, ...]) -> None:
    """Move what the user had put there, unless something of that name is there again."""
    for name in names:
        source, target = aside / name, live / name
        if source.exists() and not target.exists():
            make_folder(target.parent, mode=0o700)
            source.rename(target)
            sync_folder(target.parent)
