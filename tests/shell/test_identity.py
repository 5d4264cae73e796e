"""Identity: made once, never overwritten, and bound to its machine."""

from __future__ import annotations

import errno
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from ledger import NodeId
from meshd import identity
from meshd.errors import MeshdError
from meshd.identity import (
    hardware_identifiers,
    keep_identity,
    load_identity,
    machine_fingerprint,
    narrow_key,
    new_identity,
    node_name_of,
    set_aside_if_cloned,
)
from tests.cluster.power import power_cut_before


def settled(state_dir: Path) -> NodeId:
    """The identity after a start: loaded, or made and kept."""
    identity = load_identity(state_dir)
    if identity is None:
        identity = new_identity()
        keep_identity(state_dir, identity)
    return identity.node_id


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o666, 0o601])
def test_a_key_that_was_open_to_others_is_closed_and_that_is_said(
    tmp_path: Path, mode: int
) -> None:
    assert narrow_key(tmp_path) is None  # There is none yet.
    node = settled(tmp_path)
    assert narrow_key(tmp_path) is None
    key = tmp_path / "identity.key"
    key.chmod(mode)
    said = narrow_key(tmp_path)
    assert said is not None
    assert f"{mode:04o}" in said
    assert key.stat().st_mode & 0o777 == 0o600
    assert settled(tmp_path) == node
    assert narrow_key(tmp_path) is None


def test_an_identity_survives_a_restart_and_is_private(tmp_path: Path) -> None:
    first = new_identity()
    keep_identity(tmp_path, first)
    again = load_identity(tmp_path)
    assert again is not None
    assert again.node_id == first.node_id
    assert again.sealing_key.private_bytes_raw() == first.sealing_key.private_bytes_raw()
    assert (tmp_path / "identity.key").stat().st_mode & 0o777 == 0o600
    assert first.node_id.startswith("12D3KooW")
    assert repr(first) == f"Identity({first.node_id})"


def test_a_damaged_identity_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_bytes(b"short")
    with pytest.raises(MeshdError, match="damaged"):
        load_identity(tmp_path)
    assert (tmp_path / "identity.key").read_bytes() == b"short"


def test_a_cloned_disk_gets_a_new_identity_and_keeps_the_old_state_aside(tmp_path: Path) -> None:
    assert set_aside_if_cloned(tmp_path, ("the golden image",)) is None
    before = settled(tmp_path)
    (tmp_path / "meshd.db").write_bytes(b"votes")
    (tmp_path / "k3s").mkdir()

    sentence = set_aside_if_cloned(tmp_path, ("another machine",))

    assert sentence is not None
    assert "belongs to another machine" in sentence
    (aside,) = tmp_path.glob("cloned-*")
    assert (aside / "meshd.db").read_bytes() == b"votes"
    assert settled(aside) == before
    assert settled(tmp_path) != before
    assert (tmp_path / "k3s").is_dir(), "a supervisor may be running in it"
    assert set_aside_if_cloned(tmp_path, ("another machine",)) is None


def test_a_machine_is_known_by_its_hardware_and_not_by_its_machine_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are cloned with /etc/machine-id, and a placeholder of a vendor is no identifier."""
    monkeypatch.setattr(identity, "_DMI", tmp_path)
    monkeypatch.setattr(identity, "_DEVICE_TREE_SERIAL", tmp_path / "serial-number")
    monkeypatch.setattr(identity, "_NETWORK", tmp_path / "net")
    assert hardware_identifiers({}) == ()
    (tmp_path / "product_uuid").write_text("4C4C4544-0042-3510-8051-B4C04F4A5331\n")
    (tmp_path / "board_serial").write_text("To be filled by O.E.M.\n")
    assert hardware_identifiers({}) == ("product_uuid:4c4c4544-0042-3510-8051-b4c04f4a5331",)


def test_a_machine_with_one_new_part_keeps_its_identity(tmp_path: Path) -> None:
    assert set_aside_if_cloned(tmp_path, ("board", "card-1")) is None
    before = settled(tmp_path)
    assert set_aside_if_cloned(tmp_path, ("board", "card-2")) is None
    assert set_aside_if_cloned(tmp_path, ("case", "card-2")) is None
    assert settled(tmp_path) == before


class PowerFails(BaseException):
    """The power fails."""


@pytest.mark.parametrize("renames", range(4))
def test_a_power_cut_while_setting_aside_is_finished_at_the_next_start(
    tmp_path: Path, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aside_if_cloned(tmp_path, ("original",))
    before = settled(tmp_path)
    (tmp_path / "meshd.db").write_bytes(b"votes")
    left = iter(range(renames))
    rename = Path.rename

    def fragile(path: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise PowerFails
        return rename(path, target)

    with monkeypatch.context() as fault, suppress(PowerFails):
        fault.setattr(Path, "rename", fragile)
        set_aside_if_cloned(tmp_path, ("clone",))
    set_aside_if_cloned(tmp_path, ("clone",))
    assert not (tmp_path / "meshd.db").exists()
    assert settled(tmp_path) != before
    kept = [folder.name for folder in tmp_path.glob("cloned-*/meshd.db")]
    assert len(kept) == 1, "nothing is lost"


def test_a_fingerprint_is_keyed_and_tells_nothing_by_itself() -> None:
    identifiers = hardware_identifiers({"MESHD_FINGERPRINT": "n1"})
    one = machine_fingerprint(b"key", identifiers)
    assert one != machine_fingerprint(b"other key", identifiers)
    assert one == machine_fingerprint(b"key", identifiers)
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


@pytest.mark.parametrize("names_hurry", [False, True])
def test_no_power_cut_loses_what_is_set_aside_or_binds_it_to_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, names_hurry: bool
) -> None:
    kept = {"identity.key": b"a seed", "meshd.db": b"votes", "votes.head": b"which votes"}
    for call in count():
        state = tmp_path / str(call)
        state.mkdir()
        set_aside_if_cloned(state, ("original",))
        for name, content in kept.items():
            (state / name).write_bytes(content)
        with power_cut_before(call, monkeypatch, state, names_hurry=names_hurry) as made:
            set_aside_if_cloned(state, ("clone",))
        # A second start, which may find the rest; after it nothing of the other is in use.
        set_aside_if_cloned(state, ("clone",))
        assert not [name for name in kept if (state / name).exists()], made
        for name, content in kept.items():
            found = [path.read_bytes() for path in state.glob(f"cloned-*/{name}")]
            assert found == [content], (name, made)
        if "cut" not in made:
            break
    assert call > 10


def test_state_that_cannot_be_set_aside_is_an_error_with_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_aside_if_cloned(tmp_path, ("original",))
    (tmp_path / "identity.key").write_bytes(b"a seed")

    def refused(path: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(MeshdError, match="cannot be set aside: Read-only file system") as caught:
        set_aside_if_cloned(tmp_path, ("clone",))
    assert caught.value.code == "MESH-2001"
    assert (tmp_path / "identity.key").read_bytes() == b"a seed"
