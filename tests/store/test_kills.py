"""SIGKILL before every change that a daemon makes to a file, and before everything it reveals.

What lies in the page cache survives such a death; `test_power_cuts.py` has the other kind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.store.life import Role
from tests.store.lives import (
    KILLED,
    KillAt,
    Lives,
    boundaries,
    chosen,
    ended_formed,
    is_examined,
    judged,
)
from tests.store.record import Record


@pytest.mark.parametrize("role", ["initialiser", "server"])
def test_a_node_killed_at_any_boundary_of_genesis_remembers_and_goes_on(
    lives: Lives, opened_once: Path, role: Role
) -> None:
    answers = killed = 0
    for number in chosen(boundaries(lives, lives.folder(opened_once), role), 7):
        folder, kill = lives.folder(opened_once), KillAt(number)
        record = Record(folder / "record")
        code = lives.live(folder, role, decide=kill)
        killed += code == KILLED
        assert code in (0, KILLED), f"boundary {number}: {kill.at}"
        assert lives.live(folder, role, examined=True, seed=1) == 0, f"boundary {number}: {kill.at}"
        assert judged(record) == [], f"boundary {number}: {kill.at}"
        assert ended_formed(record)
        answers += sum(map(is_examined, record.read()))
        shutil.rmtree(folder)
    assert killed > 5
    assert answers > 10, "nothing was asked"


def test_a_first_start_killed_at_any_boundary_is_begun_again_or_goes_on(lives: Lives) -> None:
    whole = boundaries(lives, lives.folder(), "initialiser", start_only=True)
    for number in chosen(whole, 10):
        folder, kill = lives.folder(), KillAt(number)
        assert lives.live(folder, start_only=True, decide=kill) in (0, KILLED)
        key = folder / "state/identity.key"
        seed = key.read_bytes() if key.exists() else None
        assert lives.live(folder, start_only=True, seed=1) == 0, f"boundary {number}: {kill.at}"
        assert seed in (None, key.read_bytes()), "an identity that was kept stays"
        assert judged(Record(folder / "record")) == []
        shutil.rmtree(folder)


def test_a_node_killed_while_it_recovers_from_a_kill_remembers(
    lives: Lives, opened_once: Path
) -> None:
    kill = KillAt(boundaries(lives, lives.folder(opened_once), "initialiser") - 20)
    once = lives.folder(opened_once)
    assert lives.live(once, decide=kill) == KILLED
    whole = boundaries(lives, lives.folder(once), "initialiser", start_only=True)
    for number in chosen(whole, 5):
        folder, kill = lives.folder(once), KillAt(number)
        assert lives.live(folder, start_only=True, decide=kill, seed=1) in (0, KILLED)
        assert lives.live(folder, examined=True, seed=2) == 0, f"boundary {number}: {kill.at}"
        assert judged(Record(folder / "record")) == [], f"boundary {number}: {kill.at}"
        shutil.rmtree(folder)


def test_the_judges_notice_a_node_that_forgot(lives: Lives, opened_once: Path) -> None:
    """Put back as a whole, an old copy has no mark; here it is the judges that must see it."""
    folder = lives.folder(opened_once)
    kill = KillAt(boundaries(lives, lives.folder(opened_once), "server") - 60)
    assert lives.live(folder, "server", decide=kill) == KILLED
    shutil.rmtree(folder / "state")
    shutil.copytree(opened_once / "state", folder / "state")
    assert lives.live(folder, "server", start_only=True, seed=1) == 0
    kinds = {line.split()[0] for line in judged(Record(folder / "record"))}
    assert {"promise", "vote", "entry"} <= kinds
