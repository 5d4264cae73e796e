"""Stops a process before each change it makes to files: to look, to refuse it, or to kill.

Linux asks us (seccomp user notification, seccomp_unotify(2)): the process installs a filter on
itself and sends the listener away; each system call that could change a file then waits, not yet
begun, until we let it go on, answer with an error in its stead, or kill. So the boundaries of
SQLite, of Python and of everything below them are met alike, and each exactly once.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Action = Literal["go", "kill"]
"""What is done about a change; an `int` is the errno to refuse it with."""

_CALLS: dict[str, dict[str, int]] = {
    "x86_64": {
        "write": 1, "pwrite": 18, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77,
        "rename": 82, "mkdir": 83, "rmdir": 84, "unlink": 87, "chmod": 90, "fchmod": 91,
        "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264, "fchmodat": 268,
        "fallocate": 285, "renameat2": 316, "open": 2, "creat": 85, "link": 86, "symlink": 88,
        "writev": 20, "pwritev": 296, "seccomp": 317,
    },
    "aarch64": {
        "write": 64, "pwrite": 68, "fsync": 82, "fdatasync": 83, "truncate": 45, "ftruncate": 46,
        "openat": 56, "mkdirat": 34, "unlinkat": 35, "renameat": 38, "fchmodat": 53, "fchmod": 52,
        "fallocate": 47, "renameat2": 276, "linkat": 37, "symlinkat": 36, "writev": 66,
        "pwritev": 70, "seccomp": 277,
    },
}  # fmt: skip
"""Numbers of the calls that change files (include/uapi/asm-generic/unistd.h, syscall_64.tbl)."""

_BY_DESCRIPTOR = frozenset({"write", "pwrite", "fsync", "fdatasync", "ftruncate", "fchmod"})

# linux/seccomp.h, linux/filter.h.
_SET_MODE_FILTER, _NEW_LISTENER, _CONTINUE = 1, 8, 1
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_RECV, _SEND = 0xC0502100, 0xC0182101
_NOTIF = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_PR_SET_NO_NEW_PRIVS = 38
_WRITING = os.O_CREAT | os.O_TRUNC


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a file, before it is made.

    Args:
        call: the system call's name.
        path: what it is about, absolute.
        target: the new name of what is renamed.
        offset: where the bytes go.
        content: the bytes to be written, or None if the call writes none.
        length: what a file is cut or grown to.
    """

    call: str
    path: Path
    target: Path | None = None
    offset: int = 0
    content: bytes | None = None
    length: int = 0


def unsupported_reason() -> str | None:
    """Return why boundaries cannot be met here, or None."""
    if sys.platform != "linux" or platform.machine() not in _CALLS:
        return f"no table of system calls for {sys.platform} on {platform.machine()}"
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists() or "user_notif" not in actions.read_text(encoding="ascii").split():
        return "this kernel has no seccomp user notification (Linux 5.0)"
    return None


def stop_before_changes() -> int:
    """Let every change of a file from here on wait for whoever holds the listener; return it."""
    calls = _CALLS[platform.machine()]
    asked = sorted(number for name, number in calls.items() if name not in ("openat", "seccomp"))
    count = len(asked)
    # Load the number; an `openat` matters if it can make or empty a file. A jump counts from the
    # instruction after it.
    program = [
        (_LOAD, 0, 0, 0),
        (_IF_EQUAL, 0, 3, calls["openat"]),
        (_LOAD, 0, 0, 16 + 2 * 8),
        (_IF_ANY_BIT, count + 2, 0, _WRITING),
        (_RETURN, 0, 0, _ALLOW),
        *((_IF_EQUAL, count - index, 0, number) for index, number in enumerate(asked)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ASK),
    ]
    raw = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    code = ctypes.create_string_buffer(raw)
    filter_ = _Program(len(program), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    listener = int(
        libc.syscall(calls["seccomp"], _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(filter_))
    )
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


@dataclass(slots=True)
class Supervision:
    """Watches one process until it ends.

    Args:
        listener: what `stop_before_changes` returned in it.
        pid: of it.
        folder: only changes below it are told of; all others pass.
        decide: says what becomes of a change, when it is about to be made.
    """

    listener: int
    pid: int
    folder: Path
    decide: Callable[[Change], Action | int]
    _names: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = {number: name for name, number in _CALLS[platform.machine()].items()}

    def watch(self) -> None:
        """Answer until every thread of the process has ended."""
        import select  # noqa: PLC0415  # Only who watches needs it.

        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        while True:
            ((_, ready),) = poll.poll()
            if not ready & select.POLLIN:
                return
            asked = bytearray(_NOTIF.size)
            try:
                fcntl.ioctl(self.listener, _RECV, asked)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue  # The asking thread was killed meanwhile.
                raise
            identifier, thread, _, number, _, _, *arguments = _NOTIF.unpack(asked)
            answer: Action | int = "go"
            change = self._read(thread, self._names[number], arguments)
            if change is not None and self.folder in (change.path, *change.path.parents):
                answer = self.decide(change)
            if answer == "kill":
                os.kill(self.pid, signal.SIGKILL)
                continue
            refusal = answer if isinstance(answer, int) else 0
            response = _RESPONSE.pack(identifier, 0, -refusal, 0 if refusal else _CONTINUE)
            try:
                fcntl.ioctl(self.listener, _SEND, response)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise

    def _read(self, thread: int, call: str, arguments: list[int]) -> Change | None:
        """Return what is asked for; None if it changes no file that has a name."""
        if call in _BY_DESCRIPTOR:
            return self._read_open_file(thread, call, arguments)
        found: Change | None
        match call:
            case "open" | "creat" | "truncate" | "mkdir" | "rmdir" | "unlink" | "chmod":
                path = self._path(thread, None, arguments[0])
                found = Change(call, path, length=arguments[1])
            case "openat" | "mkdirat" | "unlinkat" | "fchmodat":
                path = self._path(thread, arguments[0], arguments[1])
                found = Change(call, path, length=arguments[2])
            case "rename":
                old, new = (self._path(thread, None, at) for at in arguments[:2])
                found = Change(call, old, new)
            case "renameat" | "renameat2":
                old = self._path(thread, arguments[0], arguments[1])
                found = Change(call, old, self._path(thread, arguments[2], arguments[3]))
            case _:
                raise NotImplementedError(f"{call} is not followed yet")
        # Whoever only looks changes nothing.
        return None if call == "open" and not arguments[1] & _WRITING else found

    def _read_open_file(self, thread: int, call: str, arguments: list[int]) -> Change | None:
        name = str(Path(f"/proc/{thread}/fd/{arguments[0]}").readlink())
        if not name.startswith("/") or name.endswith(" (deleted)"):
            return None
        path = Path(name)
        if call not in ("write", "pwrite"):
            return Change(call, path, length=arguments[1])
        if self.folder not in path.parents:
            return None
        content = self._memory(thread, arguments[1], arguments[2])
        offset = arguments[3] if call == "pwrite" else self._position(thread, arguments[0])
        return Change(call, path, offset=offset, content=content)

    def _position(self, thread: int, descriptor: int) -> int:
        text = Path(f"/proc/{thread}/fdinfo/{descriptor}").read_text(encoding="ascii")
        return int(text.split()[1])

    def _path(self, thread: int, folder: int | None, address: int) -> Path:
        text = b""
        while b"\0" not in text:
            room = 4096 - (address + len(text)) % 4096  # Never across the end of a page.
            text += self._memory(thread, address + len(text), room)
        path = Path(os.fsdecode(text.split(b"\0")[0]))
        if path.is_absolute():
            return path
        is_here = folder is None or folder & 0xFFFFFFFF == 0xFFFFFF9C  # AT_FDCWD
        base = "cwd" if is_here else f"fd/{folder}"
        return Path(f"/proc/{thread}/{base}").readlink() / path

    def _memory(self, thread: int, address: int, length: int) -> bytes:
        with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(length)


def send_listener(to: socket.socket, listener: int) -> None:
    """Hand the listener over, with one's own process id."""
    socket.send_fds(to, [str(os.getpid()).encode()], [listener])


def take_listener(source: socket.socket) -> tuple[int, int]:
    """Return (listener, process id)."""
    text, descriptors, _, _ = socket.recv_fds(source, 64, 1)
    (listener,) = descriptors
    return listener, int(text)
