"""Control groups of nodes that run containers, on hosts with cgroup v2 and with v1 (cgroups(7)).

A node has one group of its name at the top of every hierarchy, and sees it as the top. Standard
library only: runs in a child of the zygote. Invariant: nothing outside these groups is changed but
the list of controllers that a v2 host lends to its top groups.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simulations.lab import kernel

_TOP = Path("/sys/fs/cgroup")
_WANTED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")
_LEAF = "machine"
_GONE_S = 10.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy of this host.

    Args:
        options: what mounts it again (v1); empty for v2.
    """

    top: Path
    options: str

    @property
    def is_v2(self) -> bool:
        return not self.options


def hierarchies(mountinfo: str) -> tuple[Hierarchy, ...]:
    """Return what of the text of /proc/self/mountinfo (proc(5)) are cgroup hierarchies.

    On a host with v1 controllers a v2 hierarchy beside them has nothing to control, and is left
    out.
    """
    old, new = [], []
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        top = Path(fields.split()[4])
        kind, _, options = rest.split()[:3]
        if kind == "cgroup":
            old.append(Hierarchy(top, _remount_options(options)))
        elif kind == "cgroup2" and top == _TOP:
            new.append(Hierarchy(top, ""))
    return tuple(old or new)


def _remount_options(shown: str) -> str:
    """Return the controllers, or the name, among a mounted hierarchy's options."""
    words = shown.split(",")
    name = [word for word in words if word.startswith("name=")]
    others = [w for w in words if "=" not in w and w not in ("rw", "ro", "xattr", "clone_children")]
    return ",".join([*others, *name] if others else ["none", *name])


def of_this_host() -> tuple[Hierarchy, ...]:
    """Return this host's hierarchies."""
    return hierarchies(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))


def enter(group: str, found: Sequence[Hierarchy]) -> None:
    """Move this process into a group of its own, and show it as the top from now on.

    Raises:
        OSError: the kernel or the host refuses; the text says what.
    """
    if not found:
        raise OSError(f"no cgroups are mounted below {_TOP}")
    for hierarchy in found:
        folder = hierarchy.top / group
        if hierarchy.is_v2:
            _lend_controllers(hierarchy.top)
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # v1 gives a new group none, and takes no process into it then.
            if not hierarchy.is_v2 and (folder / name).exists():
                (folder / name).write_text((hierarchy.top / name).read_text())
        _join(folder)
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    for hierarchy in found:
        if hierarchy.is_v2:
            # A group with processes of its own lends its controllers to none below it.
            leaf = hierarchy.top / group / _LEAF
            leaf.mkdir(exist_ok=True)
            _join(leaf)
            _lend_controllers(hierarchy.top / group)


def _join(folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(os.getpid()))


def _lend_controllers(folder: Path) -> None:
    """Let the groups below a v2 group use its controllers."""
    there = (folder / "cgroup.controllers").read_text().split()
    lent = (folder / "cgroup.subtree_control").read_text().split()
    for name in _WANTED:
        if name not in there or name in lent:
            continue
        try:
            (folder / "cgroup.subtree_control").write_text(f"+{name}")
        except OSError as error:
            raise OSError(
                error.errno,
                f"{folder} lends no {name} controller ({error.strerror}): run the laboratory on "
                "a machine, not in a container whose processes are in its top group",
            ) from None


def mount_within(found: Sequence[Hierarchy]) -> None:
    """Mount the hierarchies on the node's fresh /sys, where they begin at its own group."""
    if found[0].is_v2:
        kernel.mount("cgroup2", _TOP, "cgroup2")
        return
    kernel.mount("tmpfs", _TOP, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
    for hierarchy in found:
        target = _TOP / hierarchy.top.name
        target.mkdir()
        kernel.mount("cgroup", target, "cgroup", 0, hierarchy.options)
        for single in hierarchy.top.name.split(","):
            if single != hierarchy.top.name:
                (_TOP / single).symlink_to(hierarchy.top.name)


def named(prefix: str) -> tuple[Path, ...]:
    """Return the top groups of this host whose names begin so, in all hierarchies, sorted."""
    tops = [one.top for one in of_this_host()]
    return tuple(sorted(folder for top in tops for folder in top.glob(f"{prefix}*/")))


def processes(group: str, found: Sequence[Hierarchy]) -> frozenset[int]:
    """Return the processes in a group and those below it."""
    inside: set[int] = set()
    for hierarchy in found:
        for below, _, _ in os.walk(hierarchy.top / group):
            with suppress(OSError):  # Removed meanwhile.
                inside.update(map(int, Path(below, "cgroup.procs").read_text().split()))
    return frozenset(inside)


def remove(group: str, found: Sequence[Hierarchy]) -> None:
    """Remove a group without processes, and those below it.

    Raises:
        OSError: it still has some after 10 s.
    """
    deadline = time.monotonic() + _GONE_S
    for hierarchy in found:
        for below, _, _ in os.walk(hierarchy.top / group, topdown=False):
            while not _is_removed(Path(below), is_late=time.monotonic() > deadline):
                time.sleep(0.01)


def _is_removed(folder: Path, *, is_late: bool) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        # The kernel counts an ended process for a moment longer.
        if is_late:
            raise
        return False
    return True
