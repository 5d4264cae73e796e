"""Linux system calls that Python 3.11 does not have: namespaces and mounts (setns(2), mount(2)).

Invariant: a call that the kernel refuses raises OSError with the kernel's reason.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SHARED = 0x100000

_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def _must(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave the named kinds of namespace for new ones."""
    _must(_libc.unshare(flags), "unshare")


def enter(namespace: Path, kind: int) -> None:
    """Move this thread into a namespace named by its file; `kind` is a CLONE_NEW flag."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _must(_libc.setns(descriptor, kind), f"setns {namespace}")
    finally:
        os.close(descriptor)


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount; `kind` is the file system's, empty for a bind mount or a change of propagation."""
    arguments = (source.encode(), os.fsencode(target), kind.encode(), flags, options.encode())
    _must(_libc.mount(*arguments), f"mount {target}")


def unmount(target: Path) -> None:
    """Take a mount and those below it away at once, even where a file of it is open."""
    _must(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def set_host_name(name: str) -> None:
    """Name the machine of this uts namespace."""
    socket.sethostname(name)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ended, as the first process is."""
    _must(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this signal when the parent ends; 0 ends the arrangement."""
    _must(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def name_process(name: str) -> None:
    """Set what `ps -o comm` shows, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _must(_libc.prctl(_PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0), "prctl")


@contextmanager
def inside_network(namespace: Path) -> Iterator[None]:
    """Be in another network namespace for a while; sockets made there stay there.

    Raises:
        OSError: there is no such namespace.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(namespace, CLONE_NEWNET)
        try:
            yield
        finally:
            _must(_libc.setns(home, CLONE_NEWNET), "setns")
    finally:
        os.close(home)
