"""A snapshot of etcd's database, as `k3s etcd-snapshot` writes them, judged without k3s."""

from __future__ import annotations

import errno
import hashlib
import lzma
import struct
import zipfile
import zlib
from pathlib import Path

_MAGIC = (0xED0CDAED).to_bytes(4, "little")
"""Of a bbolt file, behind the first page's header (go.etcd.io/bbolt, internal/common/types.go)."""
_MAGIC_AT = 16
_PAGE_BYTES = 512
_HASH_BYTES = hashlib.sha256().digest_size
_READ_BYTES = 1 << 20


_BROKEN_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, ValueError, OverflowError),
)
"""What Python's zipfile raises for one, depending on where it is damaged."""


def fault_of(path: Path) -> str | None:
    """Return why k3s could restore nothing from it, as a sentence, or None.

    etcd appends the SHA-256 of a snapshot to it, so one that is cut off or changed is found; k3s
    itself would have moved the database away by then. Of a compressed one zip's own sums are
    checked.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return f"{path} is no file on this node"
    if path.suffix == ".zip":  # K3s tells the kinds by that, too.
        return _fault_of_archive(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_MAGIC_AT + len(_MAGIC))
        file.seek(0)
        if head[_MAGIC_AT:] != _MAGIC or size % _PAGE_BYTES != _HASH_BYTES:
            return f"{path} is no snapshot of etcd, or a part of one"
        left, found = size - _HASH_BYTES, hashlib.sha256()
        while left and (block := file.read(min(left, _READ_BYTES))):
            found.update(block)
            left -= len(block)
        if found.digest() != file.read():
            return f"{path} is damaged: it is not what its checksum says"
    return None


def _fault_of_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            count = len(archive.namelist())
    except _BROKEN_ARCHIVE as error:
        return f"{path} is no zip archive that can be read: {error}"
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # A place before the file's begin, for one.
            raise
        return f"{path} is no zip archive that can be read: {error}"
    if broken is not None or count != 1:
        return f"{path} is damaged, or holds {count} files instead of one snapshot"
    return None
