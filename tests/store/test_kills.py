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
