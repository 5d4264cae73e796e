"""What a power cut leaves: the changes of a life, played back onto a disk that keeps little.

POSIX promises that an fsync of a file keeps its bytes and one of a folder the names in it; of
everything else any part may be kept, in any order (Pillai et al., *All File Systems Are Not Created
Equal*, OSDI 2014). So from one life's changes many disks can be made that it could have left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.store.boundary import Change

SECTOR_BYTES = 512


@dataclass(slots=True, eq=False)
class File:
    """Bytes that were synced, and what was done since, oldest first."""

    synced: bytes = b""
    since: list[Change] = field(default_factory=list)

    def content(self, kept: Iterable[Change]) -> bytes:
        """Return what is on the disk if of the newer changes only these got there."""
        found = bytearray(self.synced)
        for change in kept:
            if change.content is None:
                del found[change.length :]
                found.extend(bytes(change.length - len(found)))
            else:
                found.extend(bytes(max(0, change.offset - len(found))))
                found[change.offset : change.offset + len(change.content)] = change.content
        return bytes(found)


@dataclass(slots=True, eq=False)
class Folder:
    """Names as programs see them, and as they were synced."""

    names: dict[str, Node] = field(default_factory=dict)
    synced: dict[str, Node] = field(default_factory=dict)


Node = File | Folder


@dataclass(slots=True)
class Disk:
    """A folder of a life.

    Args:
        root: absolute path that the changes name it by.
        top: what is in it.
    """

    root: Path
    top: Folder = field(default_factory=Folder)

    @classmethod
    def of(cls, folder: Path, root: Path) -> Disk:
        """Return a disk on which everything in `folder` is synced; `root` is its name in a life."""
        return cls(root, _read(folder))

    def make(self, change: Change) -> None:
        """Take a change that was made."""
        match change.call:
            case "write" | "pwrite" | "ftruncate" | "truncate":
                self._file(change.path).since.append(change)
            case "fsync" | "fdatasync":
                self._sync(self._find(change.path))
            case "open" | "openat" | "creat":
                names = self._folder(change.path.parent).names
                names.setdefault(change.path.name, File())
            case "mkdir" | "mkdirat":
                self._folder(change.path.parent).names.setdefault(change.path.name, Folder())
            case "unlink" | "unlinkat" | "rmdir":
                self._folder(change.path.parent).names.pop(change.path.name, None)
            case "rename" | "renameat" | "renameat2":
                assert change.target is not None
                moved = self._folder(change.path.parent).names.pop(change.path.name)
                self._folder(change.target.parent).names[change.target.name] = moved
            case "chmod" | "fchmod" | "fchmodat":
                pass  # Not what these tests are about.
            case _:
                raise NotImplementedError(change.call)

    def survivors(self) -> Iterator[tuple[str, dict[str, bytes | None]]]:
        """Yield disks that a power cut now could leave, each with how it was chosen.

        A disk is relative path to content; None is a folder.
        """
        for hurried in (False, True):
            names = "all names" if hurried else "synced names"
            files = list(_walk(self.top, hurried=hurried))
            yield f"{names}, no unsynced bytes", _chosen(files, {})
            pending = [node for _, node in files if isinstance(node, File) and node.since]
            everything = {id(file): file.since for file in pending}
            if not pending:
                continue
            yield f"{names}, all bytes", _chosen(files, everything)
            for file in pending:
                yield from self._parts(names, files, file, everything)

    def _parts(
        self,
        names: str,
        files: list[tuple[str, Node]],
        file: File,
        everything: dict[int, list[Change]],
    ) -> Iterator[tuple[str, dict[str, bytes | None]]]:
        """Yield disks on which some of one file's changes are missing or torn."""
        for index, change in enumerate(file.since):
            without = [*file.since[:index], *file.since[index + 1 :]]
            kept = {**everything, id(file): without}
            yield f"{names}, without change {index}", _chosen(files, kept)
            yield f"{names}, only change {index}", _chosen(files, {id(file): [change]})
            if change.content is not None and len(change.content) > SECTOR_BYTES:
                torn = Change(
                    change.call,
                    change.path,
                    offset=change.offset,
                    content=change.content[
                        : len(change.content) // 2 // SECTOR_BYTES * SECTOR_BYTES
                    ],
                )
                kept = {**everything, id(file): [*file.since[:index], torn]}
                yield f"{names}, change {index} torn", _chosen(files, kept)

    def _sync(self, node: Node) -> None:
        if isinstance(node, Folder):
            node.synced = dict(node.names)
        else:
            node.synced = node.content(node.since)
            node.since = []

    def _find(self, path: Path) -> Node:
        node: Node = self.top
        for name in path.relative_to(self.root).parts:
            assert isinstance(node, Folder)
            node = node.names[name]
        return node

    def _folder(self, path: Path) -> Folder:
        found = self._find(path)
        assert isinstance(found, Folder)
        return found

    def _file(self, path: Path) -> File:
        found = self._find(path)
        assert isinstance(found, File)
        return found


def lay(disk: dict[str, bytes | None], folder: Path) -> None:
    """Write a disk into an empty folder."""
    for name, content in disk.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


def _read(folder: Path) -> Folder:
    names: dict[str, Node] = {}
    for path in folder.iterdir():
        names[path.name] = _read(path) if path.is_dir() else File(path.read_bytes())
    return Folder(names, dict(names))


def _walk(folder: Folder, *, hurried: bool, at: str = "") -> Iterator[tuple[str, Node]]:
    for name, node in (folder.names if hurried else folder.synced).items():
        yield f"{at}{name}", node
        if isinstance(node, Folder):
            yield from _walk(node, hurried=hurried, at=f"{at}{name}/")


def _chosen(
    files: list[tuple[str, Node]], kept: dict[int, list[Change]]
) -> dict[str, bytes | None]:
    return {
        name: node.content(kept.get(id(node), ())) if isinstance(node, File) else None
        for name, node in files
    }
