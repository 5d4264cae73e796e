"""A node's first process: makes the machine around itself, then keeps a daemon running in it.

It is to the node what init is to a machine: it holds the mount and uts namespaces, buries orphans,
and starts the daemon again 5 s after it ended, as a service manager would. Standard library only
at import; runs in a child of the zygote.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from simulations.lab import cgroups, kernel

RESTART_S = 5.0
_NOT_STARTED = 127

Daemon = Callable[[Sequence[Path], Path, Path], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What a node is made of; paths as the host sees them.

    Args:
        binds: (folder on the host, folder on the node).
        environment: the daemon's, complete.
        argv: a program to run as the daemon; empty means a fork of the zygote.
        group: for a node that runs containers, its control group; else empty.
        read_only: as `binds`, for what a node must not change.
        sysctls: (file below /proc/sys, content) that are the node's own, not the machine's.
    """

    name: str
    namespace: str
    binds: tuple[tuple[str, str], ...]
    environment: Mapping[str, str]
    cloud_config: str
    log: str
    exits: str
    argv: tuple[str, ...]
    group: str = ""
    read_only: tuple[tuple[str, str], ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)


def become_node(boot: Boot, daemon: Daemon | None, ready: int) -> NoReturn:
    """Turn this process into the node's first one; never returns.

    Args:
        boot: the node.
        daemon: runs the daemon in this process; unused if `boot.argv` names a program.
        ready: a pipe; "ok" is written when the daemon is started, else why it was not.
    """
    try:
        # Until the network namespace is entered nobody would find this process to end it.
        kernel.die_with_parent(signal.SIGKILL)
        os.setsid()
        _make_machine(boot)
        kernel.adopt_orphans()
        kernel.name_process(f"init-{boot.name}")
        _redirect(boot.log)
        kernel.die_with_parent(0)
        os.write(ready, b"ok")
        os.close(ready)
        _keep_running(boot, daemon)
    except OSError as error:
        os.write(ready, str(error).encode())
    except BaseException:  # noqa: BLE001 - Nothing may unwind into the zygote's own loop.
        traceback.print_exc()
    os._exit(1)


def _make_machine(boot: Boot) -> None:
    kernel.enter(Path("/run/netns") / boot.namespace, kernel.CLONE_NEWNET)
    groups = cgroups.of_this_host() if boot.group else ()
    if boot.group:
        cgroups.enter(boot.group, groups)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS)
    kernel.mount("none", Path("/"), "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.set_host_name(boot.name)
    # A copy of the mounts in here would keep deleted namespaces alive.
    while os.path.ismount("/run/netns"):
        kernel.unmount(Path("/run/netns"))
    for outside, within in boot.binds:
        kernel.mount(outside, Path(within), "", kernel.MS_BIND | kernel.MS_REC)
    for outside, within in boot.read_only:
        kernel.mount(outside, Path(within), "", kernel.MS_BIND)
        read_only = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY
        kernel.mount("none", Path(within), "", read_only)
    kernel.mount("tmpfs", Path("/run"), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0755")
    # /run/k3s is where a test or a person expects it before k3s has run.
    Path("/run/k3s").mkdir()
    # The devices below /sys/class/net are those of the namespace that mounted it.
    kernel.mount("sysfs", Path("/sys"), "sysfs")
    _cover_sysctls(boot.sysctls)
    if boot.group:
        cgroups.mount_within(groups)
        # What a kubelet mounts for a pod, the containers must see.
        kernel.mount("none", Path("/"), "", kernel.MS_REC | kernel.MS_SHARED)


def _cover_sysctls(sysctls: Mapping[str, str]) -> None:
    """Put files of the node's own over settings that would be the whole machine's."""
    folder = Path("/run/sysctls")
    folder.mkdir()
    for name, content in sysctls.items():
        target = Path("/proc/sys") / name
        if target.exists():  # Not every kernel has every one.
            own = folder / name.replace("/", "-")
            own.write_text(f"{content}\n", encoding="ascii")
            kernel.mount(str(own), target, "", kernel.MS_BIND)


def _redirect(log: str) -> None:
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _keep_running(boot: Boot, daemon: Daemon | None) -> NoReturn:
    # Blocked, so that sigtimedwait below is what takes it.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        pid = _start(boot, daemon)
        status = _bury_until(pid)
        with Path(boot.exits).open("a", encoding="utf-8") as file:
            file.write(f"{os.waitstatus_to_exitcode(status)}\n")
        _bury_for(RESTART_S)


def _bury_until(wanted: int) -> int:
    """Wait for every child that ends, until it is `wanted`; return its status."""
    while True:
        pid, status = os.wait()
        if pid == wanted:
            return status


def _bury_for(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        signal.sigtimedwait({signal.SIGCHLD}, left)
        _bury_ended()


def _bury_ended() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def _start(boot: Boot, daemon: Daemon | None) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = _NOT_STARTED
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        os.setsid()
        if boot.argv:
            os.execve(boot.argv[0], boot.argv, dict(boot.environment))  # noqa: S606 - No shell.
        code = _run_fork(boot, daemon)
    except BaseException:  # noqa: BLE001 - What a program would print at its end; then it ends.
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run_fork(boot: Boot, daemon: Daemon | None) -> int:
    """Run the daemon in this fork. `random` reseeds itself after a fork, OpenSSL does too."""
    assert daemon is not None
    _set_environment(boot.environment)
    kernel.name_process("meshd")
    return daemon([Path(boot.cloud_config)], Path("/var/lib/meshd"), Path("/run/meshd"))


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    # glibc read the zygote's time zone at its start.
    time.tzset()
    ctypes.CDLL(None).tzset()
