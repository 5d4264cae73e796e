"""Etcd's database aside: as a copy, durable and whole before it bears its name, or by a rename."""

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
    if (apart := _lies_apart(database, copy)) is not None:
        return apart
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


def move_aside(database: Path, copy: Path) -> str | None:
    """Move a database that is of no use, damaged or not there at all, by one rename.

    Raises:
        OSError: the disk refuses.
    """
    if copy.exists():
        return None
    make_folder(copy.parent, mode=0o700)
    make_folder(database, mode=0o700)  # So that there is something to put back.
    if (apart := _lies_apart(database, copy)) is not None:
        return apart
    database.rename(copy)
    sync_folder(copy.parent)
    sync_folder(database.parent)
    return None


def _lies_apart(database: Path, copy: Path) -> str | None:
    if not os.path.ismount(database) and database.stat().st_dev == copy.parent.stat().st_dev:
        return None
    return (
        f"{database} lies on another disk than {copy.parent}, so a copy could not be put back "
        "by renaming it: nothing was done"
    )


def size_of_tree(folder: Path) -> int:
    """Return how many bytes the files below a folder have."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
