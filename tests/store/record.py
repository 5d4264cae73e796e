"""What happened in the lives of a daemon: one line of JSON for each thing, in a file of its own.

A line is written just before the thing happens, by one system call, and stays whatever becomes of
the process; so it says all that anybody may rely on after a kill.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ledger import NodeId
from meshd.events import Channel


class Shown(msgspec.Struct, frozen=True, tag="shown"):
    """A frame is about to leave a node; `author` 0 is the real one."""

    author: int
    channel: Channel
    frame: bytes
    examined: bool = False  # It answers a question that no honest peer would ask.


class Ordered(msgspec.Struct, frozen=True, tag="ordered"):
    """k3s on a node is about to get an order."""

    author: int
    seat: str
    cluster_id: str | None
    generation: int | None
    formed: bool


class Kept(msgspec.Struct, frozen=True, tag="kept"):
    """A peer's disk took this."""

    author: int
    entries: tuple[tuple[str, str, bytes], ...]  # Author, key, entry.
    votes: tuple[tuple[str, bytes], ...]


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """The real node found this on its disk."""

    node: NodeId
    entries: tuple[bytes, ...]
    votes: tuple[tuple[str, bytes], ...]


class Told(msgspec.Struct, frozen=True, tag="told"):
    """A line of the daemon's log, or the code of the error that ended its start."""

    event: str
    code: str | None = None


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A life came to its end by itself; `waiting_for` is what all three wait for."""

    formed: bool
    waiting_for: tuple[str | None, ...]


Line = Shown | Ordered | Kept | Loaded | Told | Ended
_lines: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


@dataclass(slots=True)
class Record:
    """A file with one line for everything that happened, in order, over several lives."""

    path: Path
    _descriptor: int | None = None

    def write(self, line: Line) -> None:
        """Add a line, by one system call."""
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o600)
        os.write(self._descriptor, msgspec.json.encode(line) + b"\n")

    def read(self) -> list[Line]:
        """Return all lines."""
        if not self.path.exists():
            return []
        return [read_line(line) for line in self.path.read_bytes().splitlines()]


def read_line(text: bytes) -> Line:
    """Return the line that was written as `text`."""
    return _lines.decode(text)
