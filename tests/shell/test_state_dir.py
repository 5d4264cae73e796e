"""The state directory: one daemon owns it, and it is known whether a power cut empties it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from meshd.errors import MeshdError
from meshd.state_dir import locked_state_dir, volatile_reason


def test_a_second_daemon_is_refused_by_name(tmp_path: Path) -> None:
    with (
        locked_state_dir(tmp_path / "state"),
        pytest.raises(MeshdError, match="another meshd daemon") as caught,
        locked_state_dir(tmp_path / "state"),
    ):
        raise AssertionError("two daemons own one state directory")
    assert caught.value.code == "MESH-2002"
    with locked_state_dir(tmp_path / "state"):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_disk_too_full_for_a_process_id_is_locked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with (
        locked_state_dir(tmp_path / "state"),
        pytest.raises(MeshdError, match="process unknown"),
        locked_state_dir(tmp_path / "state"),
    ):
        raise AssertionError("two daemons own one state directory")


def test_a_state_directory_that_cannot_be_made_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(MeshdError, match="cannot be written") as caught,
        locked_state_dir(tmp_path / "file" / "state"),
    ):
        raise AssertionError("a file was taken for a directory")
    assert "--state-dir" in caught.value.fix


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("/dev/sda / ext4 rw 0 0\n", None),
        ("/dev/sda / ext4 rw 0 0\ntmpfs {state} tmpfs rw 0 0\n", "is a tmpfs"),
        ("tmpfs / tmpfs rw 0 0\n/dev/sda {state} ext4 rw 0 0\n", None),
        (
            "tmpfs / tmpfs rw 0 0\noverlay {state} overlay rw,upperdir={other} 0 0\n",
            "an overlay, and / is a tmpfs",
        ),
        ("/dev/sda / ext4 rw 0 0\noverlay {state} overlay rw,upperdir={other} 0 0\n", None),
        ("overlay {state} overlay ro,lowerdir=/a 0 0\n", "read-only overlay"),
        ("overlay / overlay rw,upperdir=/cow/upper 0 0\n", "cannot be seen from here"),
    ],
)
def test_a_directory_that_a_power_cut_empties_is_known(
    tmp_path: Path, mounts: str, expected: str | None
) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    state.mkdir()
    other.mkdir()
    reason = volatile_reason(state, mounts.format(state=state, other=other))
    assert (reason is None) if expected is None else (reason and expected in reason)
