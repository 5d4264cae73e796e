"""The state directory: one daemon owns it, and it is known whether it would survive a power cut."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meshd.errors import MeshdError

# Filesystems whose content is gone after a power cut (as /proc/mounts names them).
VOLATILE_FILESYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs", "squashfs"})


@contextmanager
def locked_state_dir(state_dir: Path) -> Iterator[None]:
    """Make `state_dir` (0700) if it is missing and hold its lock, so that one daemon owns it.

    Raises:
        MeshdError: it cannot be made or written, or another daemon holds it.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        state_dir.chmod(0o700)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MeshdError(
            "MESH-2001",
            f"the state directory {state_dir} cannot be written: {error.strerror}",
            cause="votes and the identity must be kept on a disk that this daemon may write",
            fix="make it writable, or name another directory with --state-dir",
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise MeshdError(
                "MESH-2002",
                f"another meshd daemon (process {owner}) uses {state_dir}",
                fix="stop that daemon, or give this one its own --state-dir",
            ) from error
        with suppress(OSError):  # The lock is what counts; on a full disk its owner is unknown.
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(lock)


def volatile_reason(state_dir: Path, mounts: str) -> str | None:
    """Return why `state_dir` would not survive a power cut, or None if it would.

    Args:
        state_dir: an existing directory.
        mounts: the text of /proc/self/mounts (proc(5)); the last matching mount is the visible one.
    """
    path = state_dir.resolve()
    best: tuple[int, int, str, str, str] | None = None
    for order, line in enumerate(mounts.splitlines()):
        fields = line.split(" ")
        if len(fields) < 4:
            continue
        # Blanks in mount points are written as octal escapes.
        point = fields[1].encode("ascii").decode("unicode_escape")
        if path == Path(point) or Path(point) in path.parents:
            found = (len(point), order, fields[2], point, fields[3])
            best = max(best, found) if best else found
    if best is None:
        return None
    _, _, kind, point, options = best
    if kind in VOLATILE_FILESYSTEMS:
        return f"{point} is a {kind}: its content is lost at a power cut"
    if kind == "overlay":
        upper = next((o[9:] for o in options.split(",") if o.startswith("upperdir=")), None)
        if upper is None:
            return f"{point} is a read-only overlay"
        if not Path(upper).is_dir():
            # A live system hides its writable layer, and so does a container, whose layer goes
            # with it.
            return f"{point} is an overlay whose writable layer cannot be seen from here"
        if Path(upper).resolve() != path:
            reason = volatile_reason(Path(upper), mounts)
            return f"{point} is an overlay, and {reason}" if reason else None
    return None
