from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from meshd.whole_file import make_folder, write_whole
from tests.cluster.bench import power_cut_before


def test_after_a_power_cut_at_any_point_there_is_the_old_content_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "50-meshd.yaml"
    seen = set()
    for call in count():
        path.write_bytes(b"old")
        with power_cut_before(call, monkeypatch) as made:
            write_whole(path, b"new")
        seen.add(path.read_bytes())
        assert [p.name for p in tmp_path.glob("*.yaml")] == [path.name]
        assert write_whole(path, b"new") == (b"new" not in seen)
        assert path.read_bytes() == b"new"
        if "cut" not in made:
            break
    assert seen == {b"old", b"new"}
    assert call >= 4


def test_equal_content_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert write_whole(path, b"1", mode=0o640)
    before = path.stat()
    assert not write_whole(path, b"1", mode=0o640)
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mode & 0o777 == 0o640


def test_equal_content_with_other_rights_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1")
    path.chmod(0o644)
    assert write_whole(path, b"1")
    assert path.stat().st_mode & 0o777 == 0o600


def test_rights_of_a_folder_that_exists_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    make_folder(tmp_path / "a" / "b" / "c", mode=0o700)
    modes = [(tmp_path / p).stat().st_mode & 0o777 for p in ("a", "a/b", "a/b/c")]
    assert modes == [0o755, 0o700, 0o700]
