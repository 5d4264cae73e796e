"""Makes daemons live, and die at a boundary of one's choice; then asks what they remember."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.store.boundary import Action, Change
from tests.store.judge import forgotten, forgotten_orders, lost_entries, word_of
from tests.store.life import Role
from tests.store.record import Ended, Line, Loaded, Record, Shown
from tests.store.zygote import Request, Zygote

KILLED = -9
STEP = int(os.environ.get("MESHD_EVERY_BOUNDARY", "0"))
EVERY = STEP == 1
"""Whether all boundaries are met. A greater step meets each so many-th; 0 some, spread evenly."""


@dataclass
class Lives:
    """Makes daemons live below one folder."""

    base: Path
    zygote: Zygote
    number: int = 0

    def folder(self, template: Path | None = None) -> Path:
        """Return a new folder for a life, with a copy of what another left."""
        self.number += 1
        path = self.base / str(self.number)
        if template is None:
            path.mkdir()
        else:
            shutil.copytree(template, path)
        return path

    def live(
        self,
        folder: Path,
        role: Role = "initialiser",
        *,
        start_only: bool = False,
        examined: bool = False,
        decide: Callable[[Change], Action | int] | None = None,
        seed: int = 0,
    ) -> int:
        """Let a life be lived there; `decide` says what becomes of each change."""
        request = Request(
            folder=str(folder),
            role=role,
            start_only=start_only,
            seed=seed,
            watched=decide is not None,
            examined=examined,
        )
        return self.zygote.live(request, decide or (lambda _: "go"))


def is_boundary(change: Change) -> bool:
    """Whether the change is the real node's: of its state, or something that it reveals."""
    if change.path.name != "record":
        return True
    content = change.content or b""
    return b'"author":0' in content


@dataclass
class KillAt:
    """Kills before the boundary with this number, from 0."""

    number: int
    seen: int = 0
    at: Change | None = None

    def __call__(self, change: Change) -> Action | int:
        if not is_boundary(change):
            return "go"
        self.seen += 1
        if self.seen <= self.number:
            return "go"
        self.at = change
        return "kill"


def boundaries(lives: Lives, folder: Path, role: Role, *, start_only: bool = False) -> int:
    """Return how many boundaries such a life has."""
    kill = KillAt(10**9)
    assert lives.live(folder, role, start_only=start_only, decide=kill) == 0
    assert kill.seen > 10, "boundaries are not met"
    return kill.seen


def chosen(count: int, sample: int) -> Iterator[int]:
    """Yield numbers of boundaries, up to a few more than were counted: all, or some."""
    step = STEP or max(1, count // sample)
    yield from range(Random(count).randrange(step), count + 3, step)


@dataclass
class RefuseAt:
    """Lets some changes fail, from the boundary with this number on, as a bad or full disk does."""

    number: int
    errno: int
    count: int
    seen: int = 0
    refused: list[Change] = field(default_factory=list)

    def __call__(self, change: Change) -> Action | int:
        if change.path.name == "record":
            return "go"  # It lies on another disk.
        self.seen += 1
        if not self.number < self.seen or len(self.refused) == self.count:
            return "go"
        self.refused.append(change)
        return self.errno


def report(name: str, lines: Iterable[str]) -> None:
    """Write what was found into the folder that MESHD_REPORTS names, for docs/durability.md."""
    folder = os.environ.get("MESHD_REPORTS")
    if folder is not None:
        Path(folder, f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def judged(record: Record) -> list[str]:
    """Hold a record of several lives against the laws; return what the last life had forgotten."""
    lines = record.read()
    starts = [index for index, line in enumerate(lines) if isinstance(line, Loaded)]
    loaded = lines[starts[-1]]
    assert isinstance(loaded, Loaded)
    word_of(lines, loaded.node)  # Over all lives.
    before = [line for line in lines[: starts[-1]] if not is_examined(line)]
    return [
        *forgotten(word_of(before, loaded.node), loaded.votes),
        *forgotten_orders(before, loaded.votes),
        *lost_entries(before, loaded),
        *(f"row {key}" for key, _ in loaded.votes if key == "doubt"),
    ]


def is_examined(line: Line) -> bool:
    return isinstance(line, Shown) and line.examined


def ended_formed(record: Record) -> bool:
    last = record.read()[-1]
    return isinstance(last, Ended) and last.formed
