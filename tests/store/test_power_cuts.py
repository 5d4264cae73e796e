"""The power fails before any change of a file: what was not synced is gone, or a part of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.store.boundary import Action, Change
from tests.store.judge import Place, Word, forgotten, forgotten_orders, word_of
from tests.store.life import Role
from tests.store.lives import EVERY, STEP, Lives, chosen, is_boundary
from tests.store.powercut import Disk, lay
from tests.store.record import Line, read_line
from tests.store.starts import DATABASE, Found, Owner, Starts


@dataclass
class Film:
    """Keeps every change of a life, and lets all of them be made."""

    changes: list[Change] = field(default_factory=list)

    def __call__(self, change: Change) -> Action | int:
        self.changes.append(change)
        return "go"


def lost(found: Found, word: dict[Place, Word], lines: list[Line]) -> list[str]:
    """Return what is missing of what was revealed, and why the node would not vote."""
    refusal, votes = found
    if refusal:
        return [refusal]
    doubts = [row.decode() for key, row in votes if key == "doubt"]
    return [*forgotten(word, votes), *forgotten_orders(lines, votes), *doubts]


def moments(
    changes: list[Change], template: Path, folder: Path
) -> Iterator[tuple[int, Change, Disk, list[Line]]]:
    """Yield each moment before a change, with the disk and what had happened until then."""
    disk, lines = Disk.of(template, folder), list[Line]()
    for number, change in enumerate(changes):
        if is_boundary(change):
            yield number, change, disk, lines
        if change.path.name != "record":
            disk.make(change)
        elif change.content is not None:
            lines.append(read_line(change.content))


@pytest.mark.parametrize("role", ["initialiser", "server"])
def test_what_was_revealed_survives_a_power_cut_and_nothing_halts(
    lives: Lives, opened_once: Path, memory: Path, role: Role
) -> None:
    folder, film = lives.folder(opened_once), Film()
    assert lives.live(folder, role, decide=film) == 0
    owner = Owner.of(opened_once)
    starts = Starts(memory, owner)
    checked, revealed = 0, -1
    word: dict[Place, Word] = {}
    for number, change, disk, lines in moments(film.changes, opened_once, folder):
        if number % (STEP or 5) != 0:
            continue
        if len(lines) != revealed:
            word, revealed = word_of(lines, owner.node), len(lines)
        for how, content in disk.survivors():
            state = {n: c for n, c in content.items() if n in DATABASE}
            checked += 1
            what = f"before change {number} ({change.call} {change.path.name}), {how}"
            assert lost(starts.on(state), word, lines) == [], what
    assert checked > 200
    assert len(starts.seen) > 50, "the disks do not differ"


@pytest.mark.parametrize("unsynced", ["meshd.db-wal", "state"])
def test_a_program_that_does_not_sync_is_noticed(
    lives: Lives, opened_once: Path, memory: Path, unsynced: str
) -> None:
    """Without the log's fsync votes are lost, as the head tells; without the folder's, the log."""
    folder, film = lives.folder(opened_once), Film()
    assert lives.live(folder, decide=film) == 0
    starts = Starts(memory, Owner.of(opened_once))
    syncs = ("fsync", "fdatasync")
    changes = [c for c in film.changes if not (c.call in syncs and c.path.name == unsynced)]
    assert len(changes) < len(film.changes)
    noticed = next(_losses(changes, opened_once, folder, starts), [])
    assert {line.split()[0] for line in noticed} & {"promise", "vote", "ballot", "votes.head"}, (
        noticed
    )


def _losses(
    changes: list[Change], template: Path, folder: Path, starts: Starts
) -> Iterator[list[str]]:
    """Yield what is missing on disks on which something is."""
    for _, _, disk, lines in moments(changes, template, folder):
        word = word_of(lines, starts.owner.node)
        _, content = next(disk.survivors())
        missing = lost(starts.on({n: c for n, c in content.items() if n in DATABASE}), word, lines)
        if missing:
            yield missing


def test_a_power_cut_during_the_first_start_is_made_good_by_the_next(
    lives: Lives, tmp_path: Path
) -> None:
    folder, film = lives.folder(), Film()
    assert lives.live(folder, start_only=True, decide=film) == 0
    disk = Disk(folder)
    numbers = set(chosen(len(film.changes), 5))
    assert len(numbers) > 3
    for number, change in enumerate(film.changes):
        ways = list(disk.survivors()) if number in numbers else []
        for how, content in ways if EVERY else ways[:2]:
            after = lives.folder()
            lay(content, after)
            what = f"before change {number} ({change.call} {change.path.name}), {how}"
            assert lives.live(after, start_only=True, seed=1) == 0, what
            if "state/identity.key" in content:
                key = (after / "state/identity.key").read_bytes()
                assert key == content["state/identity.key"], what
            shutil.rmtree(after)
        disk.make(change)
