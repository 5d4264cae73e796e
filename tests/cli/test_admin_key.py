"""`meshd admin-key`: a key is its owner's alone."""

from __future__ import annotations

import stat
from pathlib import Path

from meshd.config import age
from tests.cli.conftest import Meshd


def test_a_new_key_is_its_owners_alone_and_never_written_over_another(
    meshd: Meshd, tmp_path: Path
) -> None:
    file = tmp_path / "admin.age"
    ran = meshd("admin-key", "new", str(file))
    assert ran.code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (key,) = age.read_private_keys(file.read_text())
    assert ran.out == f"{age.write_public_key(key)}\n"
    assert age.write_private_key(key) not in ran.err
    assert meshd("admin-key", "show", str(file)).out == ran.out
    again = meshd("admin-key", "new", str(file))
    assert again.code == 1
    assert f"error[MESH-7052]: {file} exists" in again.err
    assert age.read_private_keys(file.read_text())[0].private_bytes_raw() == key.private_bytes_raw()
    nowhere = meshd("admin-key", "new", str(tmp_path / "no" / "key"))
    assert "error[MESH-7050]" in nowhere.err
