"""A power cut: what was not synced is gone, names as well as bytes."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_open = os.open  # Not the one that is counted.


class PowerCut(BaseException):
    """The machine is gone; no code of the program may run because of it."""


class Disk:
    """What of a folder would survive: the bytes and the names that were synced.

    POSIX promises no more: an fsync of a file is for its bytes, one of a folder for the names in
    it. Files are told apart by inode; one that is open is not used again, so all are kept open.

    Args:
        folder: what is in it now counts as synced.
        names_hurry: names reach the disk at once, as some file systems have it, and only bytes
            wait to be synced.
    """

    def __init__(self, folder: Path, *, names_hurry: bool) -> None:
        self._folder = folder
        self._names_hurry = names_hurry
        self._pins: dict[int, int] = {}
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        for path in [folder, *folder.rglob("*")]:
            self._sync(path)

    def fsync(self, descriptor: int) -> None:
        """Take the place of `os.fsync`."""
        self._sync(Path(f"/proc/self/fd/{descriptor}").resolve())

    def lose_power(self) -> None:
        """Leave in the folder what survived."""
        inodes = self._surviving(self._folder)
        modes = {inode: stat.S_IMODE(os.fstat(pin).st_mode) for inode, pin in self._pins.items()}
        for path in self._folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, inode in inodes.items():
            path = self._folder / name
            if inode in self._names:
                path.mkdir()
            else:
                path.write_bytes(self._bytes.get(inode, b""))
            path.chmod(modes[inode])
        for pin in self._pins.values():
            os.close(pin)

    def _sync(self, path: Path) -> None:
        inode = self._pin(path)
        if not path.is_dir():
            self._bytes[inode] = path.read_bytes()
            return
        self._names[inode] = {below.name: self._pin(below) for below in path.iterdir()}

    def _pin(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self._pins:
            self._pins[inode] = _open(path, os.O_PATH)
        if path.is_dir():
            self._names.setdefault(inode, {})
        return inode

    def _surviving(self, folder: Path) -> dict[str, int]:
        """Return relative path to inode, parents first."""
        if self._names_hurry:
            return {str(p.relative_to(folder)): self._pin(p) for p in sorted(folder.rglob("*"))}
        found: dict[str, int] = {}
        left = [("", folder.stat().st_ino)]
        while left:
            at, inode = left.pop()
            below = {f"{at}{name}": child for name, child in self._names.get(inode, {}).items()}
            found |= below
            left += [(f"{name}/", child) for name, child in below.items()]
        return found


@contextmanager
def power_cut_before(
    call: int, patch: pytest.MonkeyPatch, folder: Path, *, names_hurry: bool = False
) -> Iterator[list[str]]:
    """Cut the power before the call-th change of the disk, or after the last one.

    Yields the changes that were made; "cut" is the last of them if it came before the end.

    Args:
        folder: exists, and all that is changed lies in it.
        names_hurry: see `Disk`.
    """
    made: list[str] = []
    disk = Disk(folder, names_hurry=names_hurry)

    def counted(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def change(*arguments: object, **named: object) -> object:
            if len(made) == call:
                raise PowerCut
            made.append(name)
            return real(*arguments, **named)

        return change

    with patch.context() as patched:
        for name, real in (("fsync", disk.fsync), ("open", os.open), ("fchmod", os.fchmod)):
            patched.setattr(os, name, counted(name, real))
        for name in ("rename", "unlink", "mkdir", "chmod"):
            patched.setattr(Path, name, counted(name, getattr(Path, name)))
        try:
            yield made
        except PowerCut:
            made.append("cut")
    disk.lose_power()
