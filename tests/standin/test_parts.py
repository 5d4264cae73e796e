"""The stand-in's parts that need no namespace and no etcd."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.standin import kube, pki, vip
from simulations.standin.layout import Layout
from simulations.standin.log import Exit
from simulations.standin.options import Options, parse
from simulations.standin.tokens import (
    Passwords,
    parse_token,
    stored_passwords,
    write_token_files,
)
from tests.standin.machines import ROOT, STANDIN, VIP, vip_manifest


def _run(*line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin", **environment}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def _parsed(folder: Path, *arguments: str, **environment: str) -> Options:
    return parse(arguments, {"STANDIN_ETC": str(folder), **environment})


def _configure(folder: Path, **texts: str) -> None:
    """Write config.yaml (`main`) and drop-ins by name."""
    (folder / "k3s" / "config.yaml.d").mkdir(parents=True)
    for name, text in texts.items():
        path = f"config.yaml.d/{name}.yaml" if name != "main" else "config.yaml"
        (folder / "k3s" / path).write_text(text)


def test_the_version_says_what_this_is() -> None:
    done = _run(*STANDIN, "--version")
    assert done.stdout == "k3s version v1.34.1+standin (stand-in, not k3s)\n"
    assert done.returncode == 0


def test_drop_ins_win_in_name_order_and_a_plus_appends(tmp_path: Path) -> None:
    _configure(
        tmp_path,
        main="server: https://a:6443\ntls-san: [base.example]\nnode-label: [from=base]\n",
        a50="server: https://b:6443\nnode-label+: [drop=in]\ntls-san: one.example\n",
        b60="cluster-init: true\ntls-san+:\n- two.example\n",
    )
    options = _parsed(tmp_path, "server")
    assert options.server == "https://b:6443"
    assert options.node_labels == ("from=base", "drop=in")
    assert options.tls_san == ("one.example", "two.example")
    assert options.cluster_init


def test_the_command_line_wins_over_files_and_files_over_the_environment(tmp_path: Path) -> None:
    _configure(tmp_path, main="node-name: from-file\ntls-san: [file.example]\n")
    arguments = ("server", "--node-name=From-Line", "--tls-san", "a.example,b.example")
    options = _parsed(tmp_path, *arguments, K3S_URL="https://e:6443", K3S_NODE_NAME="e")
    assert options.node_name == "from-line"
    assert options.tls_san == ("a.example", "b.example")
    assert options.server == "https://e:6443"


def test_token_files_may_end_in_a_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    given = _parsed(tmp_path, "server", "--token", "secret")
    assert _parsed(tmp_path, "server", "--token-file", str(file)) == given


def test_a_missing_token_file_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(Exit, match="no such file or directory") as caught:
        _parsed(tmp_path, "server", "--token-file", str(tmp_path / "none"))
    assert caught.value.code == 1


def test_unknown_flags_are_refused_and_unknown_keys_ignored(tmp_path: Path) -> None:
    _configure(tmp_path, main="no-such-key: 1\nkubelet-arg: [a=b]\n")
    assert _parsed(tmp_path, "agent").command == "agent"
    with pytest.raises(Exit, match="flag provided but not defined: -no-such-flag"):
        _parsed(tmp_path, "server", "--no-such-flag")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", (None, None, "abc")),
        ("K10" + "a" * 64 + "::server:p:w", ("a" * 64, "server", "p:w")),
        ("node:abc", (None, "node", "abc")),
    ],
)
def test_tokens_have_two_forms(text: str, expected: tuple[str | None, str | None, str]) -> None:
    token = parse_token(text)
    assert (token.ca_hash, token.user, token.password) == expected


@pytest.mark.parametrize("text", ["K10", "K10abc", "K10abc::server", "K10abc::server:"])
def test_half_a_token_is_fatal(text: str) -> None:
    with pytest.raises(Exit, match="failed to normalize token"):
        parse_token(text)


@pytest.mark.parametrize("agent", ["agt", "abc"])
def test_token_files_read_back(tmp_path: Path, agent: str) -> None:
    layout = Layout(data=tmp_path, etc=tmp_path, kubeconfig=tmp_path / "k")
    pki.ensure_authorities(layout.tls)
    for _ in range(2):
        write_token_files(layout, Passwords(server="abc", agent=agent))
    assert stored_passwords(layout) == Passwords(server="abc", agent=agent)
    digest = hashlib.sha256((layout.tls / "server-ca.crt").read_bytes()).hexdigest()
    shown = (layout.server / "agent-token").read_text().strip()
    assert shown == f"K10{digest}::{'server:abc' if agent == 'abc' else 'node:agt'}"


def test_authorities_that_are_there_stay_and_travel_unchanged(tmp_path: Path) -> None:
    pki.ensure_authorities(tmp_path / "a")
    before = {p: (tmp_path / "a" / p).read_bytes() for p in pki.BOOTSTRAP_FILES.values()}
    (tmp_path / "a" / "service.key").unlink()
    pki.ensure_authorities(tmp_path / "a")
    pki.take_bootstrap(tmp_path / "b", pki.bootstrap_answer(tmp_path / "a"))
    for name, content in before.items():
        taken = (tmp_path / "b" / name).read_bytes()
        assert taken == (tmp_path / "a" / name).read_bytes()
        assert (taken == content) == (name != "service.key")
        assert (tmp_path / "b" / name).stat().st_mode & 0o777 == 0o600


def test_merge_patches_follow_rfc_7396() -> None:
    # The cases of the RFC's appendix A that objects can show.
    assert kube.merged({"a": "b", "b": "c"}, {"a": None}) == {"b": "c"}
    assert kube.merged({"a": ["b"]}, {"a": "c"}) == {"a": "c"}
    assert kube.merged({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}) == {"a": {"b": "d"}}
    assert kube.merged({}, {"a": {"bb": {"ccc": None}}}) == {"a": {"bb": {}}}


def test_kube_vip_is_recognised_by_its_environment() -> None:
    manifest = vip_manifest()
    settings = vip.settings_in(manifest)
    assert settings is not None
    assert settings.cidr == f"{VIP}/32"
    times = (settings.duration_s, settings.deadline_s, settings.retry_s)
    assert times == (5, 3.0, 1.0)
    pod = {"kind": "Pod", "spec": manifest["spec"]["template"]["spec"]}
    assert vip.settings_in(pod) == settings
    assert vip.settings_in({"kind": "DaemonSet", "spec": {}}) is None
    assert vip.settings_in(vip_manifest({"address": ""})) is None


def test_a_static_pod_waits_for_the_files_that_it_mounts(tmp_path: Path) -> None:
    file = tmp_path / "k3s.yaml"
    volume = {"name": "kubeconfig", "hostPath": {"path": str(file), "type": "File"}}
    pod = {"kind": "Pod", "spec": {"volumes": [volume, {"name": "x", "emptyDir": {}}]}}
    assert not vip.can_mount(pod)
    file.write_text("")
    assert vip.can_mount(pod)
    assert vip.can_mount({"kind": "Pod", "spec": {}})


def test_an_announcement_is_an_arp_request_about_itself() -> None:
    frame = vip.arp_announcement(bytes.fromhex("020000000001"), bytes([10, 99, 0, 100]))
    assert frame.hex() == (
        "ffffffffffff020000000001080600010800060400010200000000010a63006400000000000000000000"[:-8]
        + "0a630064"
    )


def test_there_is_no_sqlite_in_here(tmp_path: Path) -> None:
    line = [*STANDIN, "server", "--data-dir", str(tmp_path / "data"), "--node-ip", "127.0.0.1"]
    done = _run(*line, STANDIN_ETC=str(tmp_path))
    assert done.returncode == 1
    assert "only embedded etcd is imitated" in done.stderr


def test_asking_for_the_version_loads_no_certificates_code() -> None:
    script = (
        "import sys; from simulations.standin.__main__ import main; main(['--version']);"
        "print([m for m in ('cryptography', 'h11') if m in sys.modules])"
    )
    done = _run(sys.executable, "-c", script)
    assert done.stdout.splitlines()[-1] == "[]"
