"""A copy of etcd's database, durable and whole before it bears its name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from meshd.whole_file import make_folder, sync_folder

ROOM_MIN_BYTES = 64 << 20  # Beside the copy; k3s writes a little before it compacts.


def copy_aside(database: Path, copy: Path) -> str | None:
    """Copy the database, durably; return why that cannot be, as a sentence.

    Raises:
        OSError: the disk refuses.
    """
    if copy.exists():
        return None  # It is renamed only once it is whole.
    make_folder(copy.parent, mode=0o700)
    if os.path.ismount(database) or database.stat().st_dev != copy.parent.stat().st_dev:
        return (
            f"{database} lies on another disk than {copy.parent}, so a copy could not be put back "
            "by renaming it: nothing was done"
        )
    size = size_of_tree(database)
    free = shutil.disk_usage(copy.parent).free
    if free < size + ROOM_MIN_BYTES:
        needed = (size + ROOM_MIN_BYTES) >> 20
        return (
            f"a copy of the database needs {needed} MiB at {copy.parent}, and {free >> 20} MiB are "
            "free: nothing was done"
        )
    part = copy.with_name("etcd.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(database, part)
    except shutil.Error as error:  # A list of what could not be copied.
        return f"the database could not be copied ({error.args[0][0][2]}): nothing was done"
    for path in (*part.rglob("*"), part):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    part.rename(copy)
    sync_folder(copy.parent)
    return None


def size_of_tree(folder: Path) -> int:
    """Return how many bytes the files below a folder have."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
