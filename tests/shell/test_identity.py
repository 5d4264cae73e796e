"""Identity: made once, never overwritten, and bound to its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.errors import MeshdError
from meshd.identity import (
    load_or_create_identity,
    machine_fingerprint,
    node_name_of,
    set_aside_if_cloned,
)


def test_an_identity_survives_a_restart_and_is_private(tmp_path: Path) -> None:
    first = load_or_create_identity(tmp_path)
    assert load_or_create_identity(tmp_path).node_id == first.node_id
    assert (tmp_path / "identity.key").stat().st_mode & 0o777 == 0o600
    assert first.node_id.startswith("12D3KooW")
    assert repr(first) == f"Identity({first.node_id})"


def test_a_damaged_identity_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_bytes(b"short")
    with pytest.raises(MeshdError, match="damaged"):
        load_or_create_identity(tmp_path)
    assert (tmp_path / "identity.key").read_bytes() == b"short"


def test_a_cloned_disk_gets_a_new_identity_and_keeps_the_old_state_aside(tmp_path: Path) -> None:
    original = machine_fingerprint(b"key", {"MESHD_FINGERPRINT": "the golden image"})
    assert set_aside_if_cloned(tmp_path, original) is None
    before = load_or_create_identity(tmp_path).node_id
    (tmp_path / "meshd.db").write_bytes(b"votes")

    clone = machine_fingerprint(b"key", {"MESHD_FINGERPRINT": "another machine"})
    sentence = set_aside_if_cloned(tmp_path, clone)

    assert sentence is not None
    assert "belongs to another machine" in sentence
    (aside,) = tmp_path.glob("cloned-*")
    assert (aside / "meshd.db").read_bytes() == b"votes"
    assert load_or_create_identity(aside).node_id == before
    assert load_or_create_identity(tmp_path).node_id != before
    assert set_aside_if_cloned(tmp_path, clone) is None


def test_a_machine_with_one_new_part_keeps_its_identity(tmp_path: Path) -> None:
    assert set_aside_if_cloned(tmp_path, ("board", "card-1")) is None
    before = load_or_create_identity(tmp_path).node_id
    assert set_aside_if_cloned(tmp_path, ("board", "card-2")) is None
    assert set_aside_if_cloned(tmp_path, ("case", "card-2")) is None
    assert load_or_create_identity(tmp_path).node_id == before


def test_a_crash_while_setting_aside_is_finished_at_the_next_start(tmp_path: Path) -> None:
    set_aside_if_cloned(tmp_path, ("original",))
    before = load_or_create_identity(tmp_path).node_id
    half = tmp_path / "cloned-20260101T000000Z-1"
    half.mkdir()
    (tmp_path / "identity.key").rename(half / "identity.key")  # Power fails here.
    (tmp_path / "meshd.db").write_bytes(b"votes")
    assert set_aside_if_cloned(tmp_path, ("clone",)) is not None
    assert not (tmp_path / "meshd.db").exists()
    assert load_or_create_identity(tmp_path).node_id != before


def test_a_fingerprint_is_keyed_and_tells_nothing_by_itself() -> None:
    one = machine_fingerprint(b"key", {"MESHD_FINGERPRINT": "n1"})
    assert one != machine_fingerprint(b"other key", {"MESHD_FINGERPRINT": "n1"})
    assert one == machine_fingerprint(b"key", {"MESHD_FINGERPRINT": "n1"})
    assert "n1" not in "".join(one)


@pytest.mark.parametrize(
    ("hostname", "prefix"),
    [
        ("n1", "n1-"),
        ("Edge_Box.local", "edge-box-local-"),
        ("x" * 80, "x" * 54 + "-"),
        ("---", "node-"),
    ],
)
def test_a_node_name_is_a_dns_label_and_new_for_a_new_key(hostname: str, prefix: str) -> None:
    name = node_name_of(hostname, b"\x01" * 32)
    assert name.startswith(prefix)
    assert len(name) <= 63
    assert name != node_name_of(hostname, b"\x02" * 32)
