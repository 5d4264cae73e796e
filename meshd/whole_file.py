"""Files written whole: after a crash at any line there is the old content or the new, never a part.

The recipe is temporary file, fsync, rename, fsync of the folder (LWN 457667, "Ensuring data reaches
disk"). A file whose content and mode are already right is not touched, so its time of change tells
when something last changed.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(
    path: Path, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> bool:
    """Make `path` hold `content`; return whether it had to be written.

    The folder must exist. The temporary file is hidden and does not end like `path`, so that k3s,
    which reads every `*.yaml` of some folders, never reads one half written.

    Args:
        path: the file.
        content: what it shall hold.
        mode: its permissions, whatever the umask.
        owner: its user and group; None leaves those of whoever runs this.

    Raises:
        OSError: the file cannot be read or written.
    """
    if _holds(path, content, mode):
        return False
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        if owner is not None:
            os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.rename(path)
    sync_folder(path.parent)
    return True


def make_folder(path: Path, *, mode: int = 0o755) -> None:
    """Make `path` and its missing parents, durably; `mode` is given to new ones only.

    Raises:
        OSError: a folder cannot be made.
    """
    if path.is_dir():
        return
    make_folder(path.parent, mode=mode)
    path.mkdir(exist_ok=True)
    path.chmod(mode)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_name(path: Path) -> Path:
    """Return the path, or the first free one with a number, should the same come twice."""
    number = 2
    found = path
    while found.exists():
        found, number = path.with_name(f"{path.name}-{number}"), number + 1
    return found


def _holds(path: Path, content: bytes, mode: int) -> bool:
    try:
        return path.read_bytes() == content and path.stat().st_mode & 0o777 == mode
    except FileNotFoundError:
        return False
