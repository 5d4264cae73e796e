"""`meshd token` and `meshd config` on the command line."""

import io
import json
from pathlib import Path

import pytest

from meshd.config import parse_token
from tests.cli.conftest import Meshd
from tests.config.edgevpn_tokens import edgevpn_token


def test_new_prints_the_token_alone_on_stdout(meshd: Meshd) -> None:
    ran = meshd("token", "new", "--nodes", "7", "--seed", "/ip4/203.0.113.7/tcp/7946")
    token = parse_token(ran.out)
    assert ran.code == 0
    assert ran.out.count("\n") == 1
    assert token.bounds is not None
    assert (token.bounds.control_plane, token.bounds.nodes_max) == (3, 7)
    assert token.network.seeds == ("/ip4/203.0.113.7/tcp/7946",)
    assert token.network.network_id in ran.err
    assert ran.out.strip() not in ran.err


def test_two_tokens_are_two_networks(meshd: Meshd) -> None:
    one, two = (parse_token(meshd("token", "new").out).network for _ in range(2))
    assert one.secret != two.secret
    assert one.network_id != two.network_id


def test_qr_draws_the_token_beside_it(meshd: Meshd) -> None:
    ran = meshd("token", "new", "--qr")
    assert parse_token(ran.out).kind == "meshd"
    drawn = [line for line in ran.err.splitlines() if set(line) <= set("█▀▄ ") and line]
    assert 20 <= len(drawn) <= 24  # A console has 25 lines.


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--control-plane", "2"], "MESH-1010"),
        (["--control-plane", "9"], "MESH-1010"),
        (["--control-plane", "1"], "MESH-1011"),
        (["--nodes", "2"], "MESH-1014"),
        (["--seed", "10.0.0.1"], "MESH-1015"),
        (["--nodes", "many"], "MESH-7010"),
    ],
)
def test_sizes_and_seeds_that_do_not_do_are_usage_errors(
    meshd: Meshd, arguments: list[str], code: str
) -> None:
    ran = meshd("token", "new", *arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith(f"error[{code}]: ")
    assert "\n  fix: " in ran.err


def test_inspect_tells_all_but_the_secret(meshd: Meshd, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(meshd("token", "new", "--seed", "/dns/seed.lab/tcp/7946").out)
    token = parse_token(file.read_text())
    assert (
        meshd("token", "inspect", str(file)).out
        == f"""\
network        {token.network.network_id}
format         meshd
capability     vote
key epoch      0
bound          bounded
control plane  3
nodes max      5
quorum         3
seeds          /dns/seed.lab/tcp/7946
expires        never
"""
    )
    ran = meshd("token", "inspect", str(file), "-o", "json")
    assert json.loads(ran.out)["quorum"] == 3
    assert token.network.secret.hex() not in ran.out


def test_a_token_says_when_it_expires(meshd: Meshd, tmp_path: Path) -> None:
    made = meshd("token", "new", "--expires", "2140-02-29")
    assert "After 2140-02-29 (UTC) no new machine starts to join with it." in made.err
    file = tmp_path / "token"
    file.write_text(made.out)
    assert "expires        2140-02-29\n" in meshd("token", "inspect", str(file)).out
    shown = meshd("token", "inspect", str(file), "-o", "json").out
    assert json.loads(shown)["expires"] == "2140-02-29"
    config = tmp_path / "config.yaml"
    config.write_text(f"#cloud-config\np2p:\n  network_token: {made.out}")
    joining = meshd("token", "join", "--config", str(config), "--expires", "2141-01-01")
    assert str(parse_token(joining.out).network.expires) == "2141-01-01"
    assert parse_token(joining.out).network.capability == "join"


@pytest.mark.parametrize("value", ["7h", "2020-01-01"])
def test_an_expiry_that_does_not_do_is_a_usage_error(meshd: Meshd, value: str) -> None:
    ran = meshd("token", "new", "--expires", value)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error[MESH-1072]: ")


def test_inspect_reads_stdin_and_kairos_files(
    meshd: Meshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"#cloud-config\np2p:\n  network_token: {edgevpn_token()}\n"
    for given in (edgevpn_token(), text):
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        ran = meshd("token", "inspect", "-")
        assert ran.code == 0
        assert "format         edgevpn" in ran.out
        assert "quorum         unknown" in ran.out


def test_a_damaged_token_is_exit_6_with_the_place(
    meshd: Meshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = meshd("token", "new").out.strip()
    monkeypatch.setattr("sys.stdin", io.StringIO(text[:20] + text[21:]))
    ran = meshd("token", "inspect")
    assert ran.code == 6
    assert ran.err.startswith("error[MESH-1002]: the token is mistyped at character ")


def test_a_token_on_the_command_line_is_refused_and_not_repeated(meshd: Meshd) -> None:
    text = meshd("token", "new").out.strip()
    ran = meshd("token", "inspect", text)
    assert ran.code == 2
    assert text not in ran.err
    assert meshd("token", "inspect", "/nonexistent").code == 6


def test_join_makes_a_token_of_the_same_network_that_never_votes(
    meshd: Meshd, tmp_path: Path
) -> None:
    text = meshd("token", "new").out.strip()
    file = tmp_path / "c.yaml"
    file.write_text(f"#cloud-config\np2p: {{network_token: {text}}}\n")
    ran = meshd("token", "join", "--config", str(file))
    assert ran.code == 0
    joining, own = parse_token(ran.out).network, parse_token(text).network
    assert joining.capability == "join"
    assert (joining.network_id, joining.secret) == (own.network_id, own.secret)


CLOUD_CONFIG = """\
#cloud-config
users: [{name: a, passwd: hunter2}]
p2p:
  network_token: %s
  meshd:
    nodes_max: 5
kubevip:
  eip: 10.0.0.50
k3s:
  env: {SECRET: hunter2}
  args: [--agent-token=hunter2, --tls-san=a]
"""


@pytest.fixture
def cloud_config(tmp_path: Path) -> Path:
    file = tmp_path / "c.yaml"
    file.write_text(CLOUD_CONFIG % edgevpn_token())
    return file


def test_show_is_the_merged_configuration_without_secrets(meshd: Meshd, cloud_config: Path) -> None:
    ran = meshd("config", "show", "--config", str(cloud_config))
    assert (
        ran.out
        == f"""\
# {cloud_config}
p2p:
  network_token: (hidden)
  meshd:
    nodes_max: 5
kubevip:
  eip: 10.0.0.50
k3s:
  env:
    SECRET: (hidden)
  args:
  - --agent-token=(hidden)
  - --tls-san=a
"""
    )


def test_show_with_origin_names_the_file_and_line_of_each_value(
    meshd: Meshd, cloud_config: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later.yaml"
    later.write_text("#cloud-config\nkubevip:\n  eip: 10.0.0.51\n")
    files = ("--config", str(cloud_config), "--config", str(later))
    lines = meshd("config", "show", "--origin", *files).out.splitlines()
    assert f'kubevip.eip: "10.0.0.51"  # {later}:3' in lines
    assert f"p2p.meshd.nodes_max: 5  # {cloud_config}:6" in lines
    assert "hunter2" not in "".join(lines)


def test_validate_lists_every_error_and_is_exit_6(meshd: Meshd, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("#cloud-config\np2p:\n  role: mastr\n  dhcp: 1\n  ha: {master_nodes: 2}\n")
    ran = meshd("config", "validate", str(file))
    assert ran.code == 6
    assert [line.partition(" is ")[0] for line in ran.out.splitlines()] == [
        f"{file}:3:9: p2p.role",
        f"{file}:5:8: p2p.ha.master_nodes",
        f"{file}:4:3: p2p.dhcp",
    ]


def test_validate_passes_a_good_file_with_its_warnings(meshd: Meshd, cloud_config: Path) -> None:
    shown = meshd("config", "validate", str(cloud_config))
    assert (shown.code, "c.yaml:11:10: k3s.args: --agent-token decides" in shown.out) == (6, True)
    content = cloud_config.read_text(encoding="utf-8")
    cloud_config.write_text(content.replace("--agent-token=hunter2, ", ""), encoding="utf-8")
    ran = meshd("config", "validate", str(cloud_config))
    assert (ran.code, ran.out) == (0, "")
    fragment = cloud_config.with_name("fragment.yaml")
    fragment.write_text("#cloud-config\np2p: {role: worker}\n")
    ran = meshd("config", "validate", str(fragment))
    assert ran.code == 0
    assert "warning: no network token" in ran.err


def test_validate_names_what_contradicts(meshd: Meshd, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    token = meshd("token", "new").out.strip()
    file.write_text(
        f"#cloud-config\np2p: {{network_token: {token}, auto: {{ha: {{master_nodes: 4}}}}}}\n"
    )
    ran = meshd("config", "validate", str(file))
    assert ran.code == 6
    assert "the file asks for a control plane of 5" in ran.out
