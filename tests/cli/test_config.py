"""`meshd config`: every error with its place, the origin of every value, a new file."""

import io
import json
import stat
import sys
from pathlib import Path

import pytest

from meshd.cli import main
from meshd.config import encode_token, new_token, parse_token
from meshd.config.json_schema import MODELINE
from tests.config.edgevpn_tokens import edgevpn_token

TOKEN = encode_token(
    new_token(
        control_plane=3, nodes_max=5, seeds=(), random_bytes=lambda count: bytes(range(count))
    )
)
WRONG = """#cloud-config
p2p:
  network_token: "meshd1qq"
  ha: {master_nodes: 2}
  minimum_nodes: "3"
  disable_dht: yes
  rol: master
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, and without the kernel command line of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESHD_CMDLINE_FILE", "/dev/null")
    monkeypatch.delenv("MESHD_TOKEN_FILE", raising=False)
    return tmp_path


def write(name: str, text: str) -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def give_stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_validate_lists_every_error_of_every_file_with_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("a.yaml", WRONG)
    write("b.yaml", "#cloud-config\nkubevip:\n\teip: 10.0.0.9\n")
    write("c.yaml", "#cloud-config\nk3s: {args: [--token=x]}\nk3s: {}\n")
    assert main(["config", "validate", "a.yaml", "b.yaml", "c.yaml", "d.yaml"]) == 6
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(" ")[0] for line in lines) == [
        *("a.yaml:3:18:", "a.yaml:4:8:", "a.yaml:5:18:", "a.yaml:6:16:", "a.yaml:7:3:"),
        *("b.yaml:3:1:", "c.yaml:2:14:", "c.yaml:3:1:", "d.yaml:1:1:"),
    ]
    assert any("did you mean 'role'?" in line for line in lines)
    assert any("move it to p2p.auto.ha.master_nodes" in line for line in lines)


def test_validate_says_that_a_good_file_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.yaml", f"#cloud-config\np2p: {{network_token: {TOKEN}, vpn: {{create: false}}}}\n")
    assert main(["config", "validate", "a.yaml"]) == 0
    assert capsys.readouterr() == ("", "a.yaml: fine\n")


def test_validate_warns_of_a_missing_token_only(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.yaml", "#cloud-config\nkubevip: {eip: 10.0.0.9}\n")
    assert main(["config", "validate", "a.yaml"]) == 0
    assert "warning: no network token" in capsys.readouterr().err


def test_validate_without_files_judges_what_the_daemon_reads_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], alone: Path
) -> None:
    monkeypatch.setattr("meshd.config.sources.DEFAULT_FOLDERS", (alone / "oem",))
    assert main(["config", "validate"]) == 6
    assert capsys.readouterr().out.startswith("no network token")
    (alone / "oem").mkdir()
    write("oem/90.yaml", f"#cloud-config\np2p: {{network_token: {TOKEN}}}\n")
    assert main(["config", "validate"]) == 0
    monkeypatch.setenv("MESHD_P2P_ROLE", "nonsense")
    assert main(["config", "validate"]) == 6
    assert "environment MESHD_P2P_ROLE: p2p.role is 'nonsense'" in capsys.readouterr().out


def test_validate_does_not_read_the_environment_of_whoever_runs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESHD_P2P_ROLE", "nonsense")
    write("a.yaml", f"#cloud-config\np2p: {{network_token: {TOKEN}}}\n")
    assert main(["config", "validate", "a.yaml"]) == 0
    assert capsys.readouterr().out == ""


def test_validate_reads_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_stdin(monkeypatch, WRONG)
    assert main(["config", "validate", "-"]) == 6
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("stdin:") for line in lines)


def test_validate_as_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    write("a.yaml", WRONG)
    assert main(["config", "validate", "a.yaml", "--format", "json"]) == 6
    content = json.loads(capsys.readouterr().out)
    assert (content["api_version"], content["kind"]) == ("meshd/v1", "ConfigValidation")
    assert content["valid"] is False
    assert content["sources"] == ["a.yaml"]
    assert len(content["errors"]) == 5
    assert content["errors"][2] == {
        "code": "MESH-1022",
        "origin": "a.yaml:5:18",
        "file": "a.yaml",
        "line": 5,
        "column": 18,
        "message": "p2p.minimum_nodes is '3' in quotes, which is text",
        "fix": "write 3, without quotes",
    }
    write("b.yaml", f"#cloud-config\np2p: {{network_token: {TOKEN}}}\n")
    assert main(["config", "validate", "b.yaml", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["valid"], content["errors"]) == (True, [])
    assert [item["code"] for item in content["warnings"]] == ["MESH-1031"]


def test_validate_for_github_escapes_what_its_commands_need(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("a,b.yaml", '#cloud-config\np2p:\n  role: "50%\\nx"\n')
    assert main(["config", "validate", "a,b.yaml", "--format", "github"]) == 6
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "::error file=a%2Cb.yaml,line=3,col=9,title=MESH-1022::p2p.role is '50%25\\nx'"
    )
    write("b.yaml", "#cloud-config\n")
    assert main(["config", "validate", "b.yaml", "--format", "github"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("::warning title=MESH-1026::no network token")


def test_show_names_sources_and_the_origin_of_every_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("1.yaml", f"#cloud-config\np2p:\n  network_token: {TOKEN}\nk3s: {{args: [--debug]}}\n")
    write("2.yaml", "#cloud-config\nk3s:\n  args:\n    - --tls-san=x\nhostname: other\n")
    write("cmdline", "quiet p2p.minimum_nodes=4")
    monkeypatch.setenv("MESHD_CMDLINE_FILE", "cmdline")
    monkeypatch.setenv("MESHD_P2P_ROLE", "worker")
    args = ["config", "show", "--config", "1.yaml", "--config", "2.yaml"]
    assert main([*args, "--origin"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[:4] == ["# 1.yaml", "# 2.yaml", "# cmdline", "# environment MESHD_P2P_ROLE"]
    assert lines[4:9] == [
        'p2p.network_token: "(hidden)"  # 1.yaml:3',
        "p2p.minimum_nodes: 4  # cmdline: p2p.minimum_nodes",
        'p2p.role: "worker"  # environment MESHD_P2P_ROLE',
        'k3s.args[0]: "--debug"  # 1.yaml:4',
        'k3s.args[1]: "--tls-san=x"  # 2.yaml:4',
    ]
    assert "kubevip.leaseDuration: 5  # built-in" in lines
    assert "p2p.role" not in " ".join(line for line in lines if line.endswith("built-in"))
    assert TOKEN not in out
    assert main(args) == 0
    assert "role: worker" in capsys.readouterr().out


def test_show_names_the_token_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("token", TOKEN)
    write("1.yaml", "#cloud-config\n")
    monkeypatch.setenv("MESHD_TOKEN_FILE", "token")
    assert main(["config", "show", "--origin", "--config", "1.yaml"]) == 0
    out = capsys.readouterr().out
    assert 'p2p.network_token: "(hidden)"  # environment MESHD_TOKEN_FILE' in out
    assert "# environment MESHD_TOKEN_FILE: token" in out


def test_show_shows_what_can_be_read_and_says_what_cannot(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("1.yaml", f"#cloud-config\np2p: {{network_token: {TOKEN}}}\n")
    write("2.yaml", "#cloud-config\np2p: [\n")
    assert main(["config", "show", "--config", "1.yaml", "--config", "2.yaml"]) == 6
    out, err = capsys.readouterr()
    assert "network_token: (hidden)" in out
    assert "2.yaml:3:1: " in err


def test_init_writes_a_file_that_works_and_never_overwrites(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "init", "new.yaml", "--vip", "10.0.0.50"]) == 0
    path = Path("new.yaml")
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text.splitlines()[:2] == ["#cloud-config", MODELINE]
    assert json.loads(Path("meshd.schema.json").read_text())["title"] == "meshd cloud-config"
    assert main(["config", "validate", "new.yaml"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["config", "init", "new.yaml"]) == 6
    assert "MESH-1044" in capsys.readouterr().err
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), ["master_nodes: 2"]),
        (("--control-plane", "5"), ["master_nodes: 4"]),
        (("--control-plane", "1", "--nodes", "3"), []),
    ],
)
def test_init_makes_a_token_of_the_sizes_asked_for(
    options: tuple[str, ...], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "init", "-", *options]) == 0
    out = capsys.readouterr().out
    assert [word for word in says if word not in out] == []
    write("new.yaml", out)
    assert main(["config", "validate", "new.yaml"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_init_takes_a_token_of_either_kind_from_a_file_or_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_stdin(monkeypatch, f"{TOKEN}\n")
    assert main(["config", "init", "-", "--token-file", "-"]) == 0
    assert f'"{TOKEN}"' in capsys.readouterr().out
    write("token", edgevpn_token())
    options = ("--token-file", "token", "--control-plane", "1", "--nodes", "3")
    assert main(["config", "init", "edge.yaml", *options]) == 0
    assert "nodes_max: 3" in Path("edge.yaml").read_text()
    assert main(["config", "validate", "edge.yaml"]) == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--control-plane", "2"), "MESH-1010"),
        (("--control-plane", "1"), "MESH-1011"),
        (("--vip", "vip.example.org"), "MESH-1022"),
        (("--token-file", "token", "--control-plane", "5"), "MESH-1027"),
        (("--token-file", "token", "--nodes", "9"), "MESH-1027"),
    ],
)
def test_init_refuses_what_does_not_fit_together_and_writes_nothing(
    options: tuple[str, ...], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("token", TOKEN)
    assert main(["config", "init", "new.yaml", *options]) == 2
    assert code in capsys.readouterr().err
    assert not Path("new.yaml").exists()


def test_init_says_where_it_cannot_write(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "nowhere/new.yaml"]) == 6
    assert "MESH-1045" in capsys.readouterr().err


def test_a_token_of_init_is_like_one_of_token_new(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "init", "-"]) == 0
    first = capsys.readouterr().out
    assert main(["config", "init", "-"]) == 0
    second = capsys.readouterr().out
    tokens = [text.split('"')[1] for text in (first, second)]
    assert len({parse_token(token).network.network_id for token in tokens}) == 2
