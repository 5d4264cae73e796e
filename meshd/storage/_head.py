"""The head of the journal: a file beside the database that names the newest votes committed to it.

A database that lost its newest commits is as sound as one that never had them: SQLite passes over
the rest of a write-ahead log from its first damaged frame on, and a removed log or an older copy
looks like a quieter past. So the digest of all votes, chained to the one before, is kept in the
database and, once that is committed and before anyone is told of the vote, in this file too.

Invariant: whoever finds the file's digest neither newest nor next to newest in the database has
lost votes, or another's file. A crash between commit and file leaves it one behind, which is the
only step that is not suspicious: the vote was told to nobody yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from meshd.whole_file import sync_folder, write_whole

HEAD_NAME = "votes.head"


def head_file(state_dir: Path) -> Path:
    """Return where the head lies."""
    return state_dir / HEAD_NAME


def chained(before: str, rows: Iterable[tuple[str, bytes]]) -> str:
    """Return the digest of all votes after a commit, as 64 hex digits.

    Args:
        before: the digest before that commit; at first what the database belongs to.
        rows: every row of the journal, sorted by key.
    """
    digest = hashlib.sha256(before.encode())
    for key, vote in rows:
        digest.update(f"\n{len(key)} {len(vote)}\n{key}\n".encode())
        digest.update(vote)
    return digest.hexdigest()


def read_head(path: Path) -> str | None:
    """Return what the file says; None if there is none, any text if it is damaged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return path.read_bytes().decode("ascii", "replace").removesuffix("\n")
    except FileNotFoundError:
        return None


def write_head(path: Path, digest: str) -> None:
    """Let the file say this, durably.

    Raises:
        OSError: the disk refuses; the file says what it said, or this.
    """
    if not write_whole(path, f"{digest}\n".encode("ascii")):
        sync_folder(path.parent)  # An earlier call may have failed between the two.
