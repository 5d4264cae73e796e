from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from meshd.whole_file import make_folder, write_whole
from tests.cluster.power import power_cut_before


@pytest.mark.parametrize("names_hurry", [False, True])
def test_after_a_power_cut_at_any_point_there_is_the_old_content_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, names_hurry: bool
) -> None:
    seen = []
    for call in count():
        folder = tmp_path / str(call)
        folder.mkdir()
        path = folder / "50-meshd.yaml"
        path.write_bytes(b"old")
        with power_cut_before(call, monkeypatch, folder, names_hurry=names_hurry) as made:
            write_whole(path, b"new")
        seen.append(path.read_bytes())
        assert [p.name for p in folder.glob("*.yaml")] == [path.name]
        assert write_whole(path, b"new") == (seen[-1] == b"old")
        assert path.read_bytes() == b"new"
        if "cut" not in made:
            break
    assert set(seen) == {b"old", b"new"}
    assert seen[-1] == b"new", "what was written is durable"
    assert seen == sorted(seen, reverse=True)


def test_after_a_power_cut_at_any_point_there_is_no_folder_or_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in count():
        root = tmp_path / str(call)
        root.mkdir()
        with power_cut_before(call, monkeypatch, root) as made:
            make_folder(root / "a" / "b", mode=0o700)
        if "cut" not in made:
            assert (root / "a" / "b").is_dir(), "what was made is durable"
            break
        make_folder(root / "a" / "b", mode=0o700)
    assert call > 4


def test_what_was_not_synced_is_gone_after_the_simulated_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kept", "overwritten", "renamed", "removed"):
        (tmp_path / name).write_bytes(b"old")
    with power_cut_before(-1, monkeypatch, tmp_path):
        (tmp_path / "made").write_bytes(b"new")
        (tmp_path / "overwritten").write_bytes(b"new")
        (tmp_path / "renamed").rename(tmp_path / "other")
        (tmp_path / "removed").unlink()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == dict.fromkeys(
        ("kept", "overwritten", "renamed", "removed"), b"old"
    )
    with power_cut_before(-1, monkeypatch, tmp_path, names_hurry=True):
        (tmp_path / "made").write_bytes(b"new")
        (tmp_path / "removed").unlink()
    assert (tmp_path / "made").read_bytes() == b""
    assert not (tmp_path / "removed").exists()


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
