"""`meshd kubeconfig`: who gets one, and that no file is ever worse off for it."""

from __future__ import annotations

import base64
import os
import stat
from itertools import count
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from meshd.cli import kubeconfig as module
from meshd.cli import kubefile
from meshd.config import age
from meshd.schema import ADMIN_KUBECONFIG
from meshd.sealing import seal
from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FORMED, WAITING, FakeDaemon, Json
from tests.cli.test_kubefile import OTHERS, OURS, encoded, k3s_file
from tests.cluster.power import power_cut_before

KEY = X25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = age.write_public_key(KEY)
WORKER: Json = {**FORMED, "node": {**FORMED["node"], "role": "worker", "name": "w1"}}


def sealed(text: str, *, stamp_ms: int = 1, author: str = "n1", recipient: str = PUBLIC) -> Json:
    value = seal(
        text,
        recipient=recipient,
        sealing_key=KEY.public_key().public_bytes_raw(),
        name=ADMIN_KUBECONFIG,
    )
    return {
        "recipient": PUBLIC,
        "author": author,
        "stamp_ms": stamp_ms,
        "value": base64.b64encode(value).decode(),
    }


@pytest.fixture
def server(daemon: FakeDaemon, tmp_path: Path) -> FakeDaemon:
    """The daemon of a server, whose k3s has written its file."""
    file = tmp_path / "k3s.yaml"
    file.write_text(k3s_file())
    daemon.sources = {"file": str(file), "sealed": []}
    return daemon


@pytest.fixture
def worker(daemon: FakeDaemon) -> FakeDaemon:
    daemon.status = WORKER
    return daemon


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "admin.age"
    file.write_text(f"# mine\n{age.write_private_key(KEY)}\n")
    return file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Who gets one.


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_a_server_gives_it_on_stdout_for_the_vip(
    meshd: Meshd, server: FakeDaemon, arguments: tuple[str, ...]
) -> None:
    ran = meshd("kubeconfig", *arguments)
    assert (ran.code, ran.err) == (0, "")
    content = yaml.safe_load(ran.out)
    assert content["clusters"][0]["cluster"]["server"] == "https://10.0.0.50:6443"
    assert content["current-context"] == "meshd-oak-7f3a9c12"
    assert ran.out.startswith("# Other servers of this cluster: https://10.0.0.11:6443\n")


def test_without_a_holder_of_the_vip_it_is_for_the_server_that_answers(
    meshd: Meshd, server: FakeDaemon
) -> None:
    cluster = {**FORMED["cluster"], "endpoint": "https://10.0.0.11:6443"}
    server.status = {**FORMED, "cluster": cluster}
    assert "server: https://10.0.0.11:6443" in meshd("kubeconfig").out
    server.status = {**FORMED, "cluster": {**cluster, "endpoint": None, "servers": []}}
    ran = meshd("kubeconfig")
    assert "server: https://10.0.0.11:6443" in ran.out  # This server's own.
    assert "no server answers now" in ran.err
    server.status = {**server.status, "nodes": []}
    ran = meshd("kubeconfig")
    assert (ran.code, ran.out) == (1, "")
    assert "error[MESH-7054]" in ran.err


def test_before_done_there_is_none_and_it_is_said_why(meshd: Meshd, server: FakeDaemon) -> None:
    server.status = WAITING
    ran = meshd("kubeconfig")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error[MESH-7041]: there is no cluster to administer yet: genesis is")
    assert "provisional" in ran.err
    assert "2 of 3 voters seen" in ran.err
    assert "meshd wait --for formed" in ran.err
    assert server.requests == ["/v1/status"]


def test_a_worker_names_the_servers(meshd: Meshd, worker: FakeDaemon) -> None:
    ran = meshd("kubeconfig")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err == (
        "error[MESH-7042]: w1 is a worker: it has no kubeconfig to give\n"
        "  fix: run it as root on a server (n1, n2), or add --key FILE with the private key of one "
        "of p2p.meshd.admins\n"
    )


def test_the_owner_of_an_admins_key_gets_it_on_a_worker(
    meshd: Meshd, worker: FakeDaemon, key_file: Path
) -> None:
    old = k3s_file().replace(OURS.key, encoded("an old key"))
    worker.sources["sealed"] = [sealed(old, stamp_ms=1), sealed(k3s_file(), stamp_ms=2)]
    ran = meshd("kubeconfig", "--key", str(key_file))
    assert (ran.code, ran.err) == (0, "")
    assert yaml.safe_load(ran.out)["users"][0]["user"]["client-key-data"] == OURS.key
    assert worker.requests[-1] == f"/v1/kubeconfig?recipients={PUBLIC}"


def test_a_copy_that_does_not_open_is_passed_over_and_if_none_does_that_is_said(
    meshd: Meshd, worker: FakeDaemon, key_file: Path
) -> None:
    foreign = sealed(k3s_file(), stamp_ms=9, author="n9", recipient="somebody else")
    worker.sources["sealed"] = [foreign, sealed(k3s_file())]
    assert meshd("kubeconfig", "--key", str(key_file)).code == 0
    worker.sources["sealed"] = [foreign]
    ran = meshd("kubeconfig", "--key", str(key_file))
    assert (ran.code, ran.out) == (1, "")
    assert "error[MESH-7053]" in ran.err
    assert "n9" in ran.err


def test_a_key_that_is_no_admins_is_told_so(
    meshd: Meshd, worker: FakeDaemon, key_file: Path
) -> None:
    ran = meshd("kubeconfig", "--key", str(key_file))
    assert ran.code == 4
    assert f"error[MESH-7045]: the ledger holds no kubeconfig for {PUBLIC}" in ran.err
    assert "(n1, n2)" in ran.err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is no key: it holds no key"),
        (b"age1qqqq\n", "is no key: line 1 is a public key"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_a_bad_key_file_is_named(
    meshd: Meshd, worker: FakeDaemon, tmp_path: Path, content: bytes | None, why: str
) -> None:
    file = tmp_path / "bad"
    if content is not None:
        file.write_bytes(content)
    ran = meshd("kubeconfig", "--key", str(file))
    assert ran.code == 1
    assert ran.err.startswith(f"error[MESH-7043]: {file} {why}\n")


def test_a_private_key_on_the_command_line_is_refused_and_not_repeated(
    meshd: Meshd, worker: FakeDaemon
) -> None:
    private = age.write_private_key(KEY)
    ran = meshd("kubeconfig", "--key", private)
    assert ran.code == 2
    assert "error[MESH-7017]" in ran.err
    assert private[20:40] not in ran.err


def test_a_file_of_k3s_that_is_missing_unreadable_or_odd_is_said(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "k3s.yaml"
    file.write_text("clusters: 7\n")
    ran = meshd("kubeconfig")
    assert (ran.code, ran.out) == (1, "")
    assert "error[MESH-7047]: what k3s wrote for its administrator is no kubeconfig: line 1" in (
        ran.err
    )
    file.unlink()
    assert "No such file" in meshd("kubeconfig").err

    def refused(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refused)
    ran = meshd("kubeconfig")
    assert ran.code == 4
    assert f"error[MESH-7046]: this user may not read {file}" in ran.err
    assert "--key FILE" in ran.err


# Where it is written.


def test_it_is_written_for_its_owner_only_and_the_next_command_is_said(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "mine"
    ran = meshd("kubeconfig", str(path))
    assert (ran.code, ran.out) == (0, "")
    assert mode_of(path) == 0o600
    assert ran.err == (
        f"{path} has the context meshd-oak-7f3a9c12, server https://10.0.0.50:6443\n"
        f"next: kubectl --kubeconfig {path} get nodes\n"
    )
    again = meshd("kubeconfig", str(path))
    assert again.err.startswith(f"{path} has the context meshd-oak-7f3a9c12, server ")
    assert sorted(one.name for one in tmp_path.glob("mine*")) == ["mine"]


def test_a_file_with_other_entries_is_not_replaced_without_force_and_then_kept(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "config"
    path.write_text(OTHERS)
    ran = meshd("kubeconfig", str(path))
    assert ran.code == 1
    assert "error[MESH-7051]" in ran.err
    assert path.read_text() == OTHERS
    ran = meshd("kubeconfig", str(path), "--force")
    assert ran.code == 0
    assert [one["name"] for one in yaml.safe_load(path.read_text())["users"]] == [OURS.name]
    backup = tmp_path / "config.before-meshd"
    assert backup.read_text() == OTHERS
    assert mode_of(backup) == 0o600
    assert str(backup) in ran.err


def test_merge_goes_into_the_first_file_of_the_environment(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "new" / "first", tmp_path / "second"
    monkeypatch.setenv("KUBECONFIG", f":{first}:{second}")
    ran = meshd("kubeconfig", "--merge")
    assert ran.code == 0
    assert (mode_of(first), mode_of(first.parent)) == (0o600, 0o700)
    assert not second.exists()
    assert ran.err.endswith("next: kubectl get nodes\n")


def test_merge_goes_into_the_home_and_leaves_the_current_context(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".kube" / "config"
    path.parent.mkdir()
    path.write_text(OTHERS)
    path.chmod(0o644)
    ran = meshd("kubeconfig", "--merge")
    assert ran.code == 0
    assert yaml.safe_load(path.read_text())["current-context"] == "home"
    assert mode_of(path) == 0o600
    assert (path.parent / "config.before-meshd").read_text() == OTHERS
    assert ran.err.endswith("next: kubectl --context meshd-oak-7f3a9c12 get nodes\n")
    before = path.stat()
    again = meshd("kubeconfig", "--merge")
    assert " already" in again.err
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    meshd("kubeconfig", "--merge", "--set-current")
    assert yaml.safe_load(path.read_text())["current-context"] == OURS.name


def test_a_link_stays_a_link_and_what_it_leads_to_is_changed(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path
) -> None:
    real, link = tmp_path / "dotfiles" / "kube", tmp_path / "config"
    real.parent.mkdir()
    real.write_text(OTHERS)
    link.symlink_to("dotfiles/kube")
    assert meshd("kubeconfig", str(link), "--merge").code == 0
    assert link.is_symlink()
    assert len(yaml.safe_load(real.read_text())["users"]) == 2
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    ran = meshd("kubeconfig", str(circle), "--merge")
    assert ran.code == 1
    assert "error[MESH-7050]" in ran.err


def test_the_owner_of_a_file_stays_its_owner(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to somebody else")
    path = tmp_path / "config"
    path.write_text(OTHERS)
    os.chown(path, 1234, 5678)
    assert meshd("kubeconfig", str(path), "--merge").code == 0
    for one in (path, tmp_path / "config.before-meshd"):
        assert (one.stat().st_uid, one.stat().st_gid) == (1234, 5678)


def test_a_malformed_file_is_named_with_its_line_and_left_as_it_is(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "config"
    for content in (b"apiVersion: v1\nclusters: [\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        for arguments in ((), ("--merge",), ("--merge", "--force")):
            ran = meshd("kubeconfig", str(path), *arguments)
            assert ran.code == 1
            assert f"error[MESH-7048]: {path} is no kubeconfig, and is left as it is: " in ran.err
    assert path.read_bytes() == content
    assert sorted(one.name for one in tmp_path.glob("config*")) == ["config"]


def test_the_name_of_another_cluster_is_taken_by_force_only(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path
) -> None:
    path = tmp_path / "config"
    (tmp_path / "k3s.yaml").write_text(k3s_file(encoded("an older cluster")))
    assert meshd("kubeconfig", str(path), "--merge").code == 0
    before = path.read_text()
    (tmp_path / "k3s.yaml").write_text(k3s_file())
    ran = meshd("kubeconfig", str(path), "--merge")
    assert ran.code == 1
    assert f"error[MESH-7049]: {path} is left as it is: there meshd-oak-7f3a9c12 is" in ran.err
    assert path.read_text() == before
    assert meshd("kubeconfig", str(path), "--merge", "--force").code == 0
    assert OURS.authority in path.read_text()


def test_a_folder_that_refuses_is_an_error_that_changes_nothing(
    meshd: Meshd, server: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_text(OTHERS)
    real = os.open

    def refusing(name: str | Path, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(30, "Read-only file system", str(name))
        return real(name, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    ran = meshd("kubeconfig", str(path), "--merge")
    assert ran.code == 1
    assert ran.err.startswith(f"error[MESH-7050]: {path} cannot be written: Read-only file system")
    assert path.read_text() == OTHERS
    missing = meshd("kubeconfig", str(tmp_path / "no" / "folder"))
    assert "error[MESH-7050]" in missing.err
    assert not (tmp_path / "no").exists()


def test_after_a_power_cut_at_any_point_there_is_the_old_file_or_the_new_and_a_copy_of_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = kubefile.merged(OTHERS, OURS, force=False, set_current=False)
    seen = []
    for call in count():
        folder = tmp_path / str(call)
        folder.mkdir()
        path = folder / "config"
        path.write_text(OTHERS)
        with power_cut_before(call, monkeypatch, folder) as made:
            module._replace(path, OTHERS, new, makes_folder=False)
        seen.append(path.read_text())
        if seen[-1] != OTHERS:
            assert (folder / "config.before-meshd").read_text() == OTHERS
        if "cut" not in made:
            break
    assert set(seen) == {OTHERS, new}
    assert seen[-1] == new


@pytest.mark.parametrize(
    "arguments", [("-", "--merge"), ("--set-current",), ("somewhere", "--set-current")]
)
def test_options_that_do_not_go_together_are_refused(
    meshd: Meshd, server: FakeDaemon, arguments: tuple[str, ...]
) -> None:
    ran = meshd("kubeconfig", *arguments)
    assert ran.code == 2
    assert "error[MESH-7055]" in ran.err
    assert server.requests == []
