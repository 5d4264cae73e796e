"""The kernel command line and the environment, and which of two sources wins."""

import os
from pathlib import Path

import pytest

from meshd.config.keys import ALL
from meshd.config.load import Configuration, read_configuration
from meshd.config.overlay import VARIABLES, variable_of
from meshd.config.redact import flat
from tests.config.loading import TOKEN, Load


@pytest.fixture
def boot(load: Load, tmp_path: Path) -> "Boot":
    return Boot(load, tmp_path / "cmdline")


class Boot:
    """Reads a file, a kernel command line and variables together."""

    def __init__(self, load: Load, cmdline: Path) -> None:
        self._load = load
        self.cmdline = cmdline

    def __call__(self, cmdline: str, text: str = "", **env: str) -> Configuration:
        self.cmdline.write_text(cmdline + "\n")
        return self._load.examine(
            f"p2p: {{network_token: TOKEN}}\n{text}", MESHD_CMDLINE_FILE=str(self.cmdline), **env
        )

    def values(self, found: Configuration) -> dict[str, tuple[str, str]]:
        """Every value with its origin, except the token of the file."""
        return {
            path: (value, str(origin).replace(str(self.cmdline), "CMDLINE"))
            for path, value, origin in flat(found.sources.content)
            if path != "p2p.network_token"
        }


@pytest.mark.parametrize(
    ("cmdline", "values"),
    [
        ("root=LABEL=X quiet rd.immucore.debug p2p=1 k3s", {}),
        ("kairos.config=p2p.role=worker", {"p2p.role": '"worker"'}),
        ("cos.setup=p2p.role=worker", {"p2p.role": '"worker"'}),
        ("p2p.role=worker", {"p2p.role": '"worker"'}),
        ("p2p.disable_dht", {"p2p.disable_dht": "true"}),
        ("kairos.config=p2p.disable_dht", {"p2p.disable_dht": "true"}),
        ("p2p.minimum_nodes=3", {"p2p.minimum_nodes": "3"}),
        ("kairos.config=hostname=box", {"hostname": '"box"'}),
        ('kairos.config="p2p.network_id=my lab"', {"p2p.network_id": '"my lab"'}),
        ('p2p.network_id="my lab"', {"p2p.network_id": '"my lab"'}),
        ("kairos.config='p2p.network_id=my lab'", {"p2p.network_id": '"my lab"'}),
        ("note=it's p2p.role=worker p2p.network_id=\"my lab\"",
         {"p2p.role": '"worker"', "p2p.network_id": '"my lab"'}),
        ("k3s.args.0=--debug k3s.args.1=--tls-san=a=b",
         {"k3s.args[0]": '"--debug"', "k3s.args[1]": '"--tls-san=a=b"'}),
        ("kairos.config=users.1.name=b kairos.config=users.0.name=a",
         {"users[0].name": '"a"', "users[1].name": '"b"'}),
        # Later wins, and what is marked as Kairos' wins over what is not.
        ("p2p.role=worker p2p.role=master", {"p2p.role": '"master"'}),
        ("kairos.config=p2p.role=master p2p.role=worker", {"p2p.role": '"master"'}),
        ("kairos.config= kairos.config=0.a=b", {}),
    ],
)  # fmt: skip
def test_the_kernel_command_line_is_read_as_kairos_reads_it(
    boot: Boot, cmdline: str, values: dict[str, str]
) -> None:
    found = boot(cmdline)
    assert found.errors == ()
    assert {path: value for path, (value, _) in boot.values(found).items()} == values
    used = (str(boot.cmdline),) if values else ()
    assert found.sources.names[1:] == used


def test_each_value_of_the_kernel_command_line_names_its_parameter(boot: Boot) -> None:
    found = boot("kairos.config=p2p.role=master p2p.minimum_nodes=4")
    assert boot.values(found) == {
        "p2p.role": ('"master"', "CMDLINE: p2p.role"),
        "p2p.minimum_nodes": ("4", "CMDLINE: p2p.minimum_nodes"),
    }


def test_lists_of_the_kernel_command_line_are_united_with_the_files(boot: Boot) -> None:
    found = boot("k3s.args.0=--debug", "k3s: {args: [--tls-san=x]}")
    assert found.settings is not None
    assert found.settings.k3s.args == ("--tls-san=x", "--debug")


def test_a_value_without_type_may_replace_one_of_any_type(boot: Boot) -> None:
    found = boot("p2p.network_id=7", "kubevip: {eip: 10.0.0.9}")
    assert found.errors == ()
    named = boot("kubevip.eip.0=10.0.0.9", "kubevip: {eip: 10.0.0.9}")
    assert [error.code for error in named.errors] == ["MESH-1021"]


@pytest.mark.parametrize(
    ("cmdline", "code"),
    [
        ("p2p.role=wrker", "MESH-1022"),
        ("p2p.ha.master_nodes=2", "MESH-1024"),
        ("k3s.args.256=--debug", "MESH-1041"),
        ("p2p.disable_dhd=true", "MESH-1023"),
        ("kairos.config_url=https://example.org/a?b=c", "MESH-1034"),
        ("config_url=https://example.org/a", "MESH-1034"),
        ("cos.setup=https://example.org/a", "MESH-1034"),
        (f"p2p.network_token={TOKEN}", "MESH-1038"),
    ],
)
def test_what_is_wrong_on_the_kernel_command_line_is_said(
    boot: Boot, cmdline: str, code: str
) -> None:
    found = boot(cmdline)
    (item,) = [item for item in (*found.errors, *found.findings) if item.code == code]
    assert item.located.startswith(f"{boot.cmdline}: ")
    assert TOKEN not in item.located


def test_a_token_on_the_kernel_command_line_is_enough(load: Load, tmp_path: Path) -> None:
    cmdline = tmp_path / "cmdline"
    cmdline.write_text(f"quiet p2p.network_token={TOKEN}\n")
    assert load("k3s: {}", MESHD_CMDLINE_FILE=str(cmdline)).bounds.nodes_max == 7


def test_without_a_kernel_command_line_nothing_is_read_unless_it_was_named(
    load: Load, tmp_path: Path
) -> None:
    (error,) = load.examine(
        "p2p: {network_token: TOKEN}", MESHD_CMDLINE_FILE=str(tmp_path / "absent")
    ).errors
    assert error.located.startswith("environment MESHD_CMDLINE_FILE: ")


def test_a_variable_sets_any_key_that_is_no_secret(boot: Boot) -> None:
    found = boot(
        "",
        MESHD_P2P_ROLE="worker",
        MESHD_P2P_MESHD_SEEDS="[/ip4/10.0.0.1/tcp/7946]",
        MESHD_P2P_MESHD_LABELS="{zone: b}",
        MESHD_KUBEVIP_EIP="fd00::50",
        MESHD_K3S_AGENT_ARGS="['--node-label a=b']",
        MESHD_P2P_NETWORK_ID="",
    )
    settings = found.settings
    assert settings is not None
    assert settings.role == "worker"
    assert settings.seeds[-1] == "/ip4/10.0.0.1/tcp/7946"
    assert settings.labels == (("zone", "b"),)
    assert settings.kubevip is not None
    assert settings.kubevip.address == "fd00::50"
    assert settings.k3s_agent.args == ("--node-label", "a=b")
    assert boot.values(found)["p2p.role"] == ('"worker"', "environment MESHD_P2P_ROLE")


def test_the_environment_wins_over_the_kernel_command_line_and_that_over_files(boot: Boot) -> None:
    text = "k3s: {args: [--debug]}\nkubevip: {eip: 10.0.0.1}"
    assert boot.values(boot("", text))["kubevip.eip"][0] == '"10.0.0.1"'
    assert boot.values(boot("kubevip.eip=10.0.0.2", text))["kubevip.eip"][0] == '"10.0.0.2"'
    found = boot("kubevip.eip=10.0.0.2", text, MESHD_KUBEVIP_EIP="10.0.0.3")
    assert boot.values(found)["kubevip.eip"] == ('"10.0.0.3"', "environment MESHD_KUBEVIP_EIP")
    # A variable replaces a list; it does not add to it.
    found = boot("", text, MESHD_K3S_ARGS="[--tls-san=x]")
    assert found.settings is not None
    assert found.settings.k3s.args == ("--tls-san=x",)


@pytest.mark.parametrize(
    ("name", "value", "code", "says"),
    [
        ("MESHD_P2P_NETWORK_TOKEN", TOKEN, "MESH-1040", "MESHD_TOKEN_FILE"),
        ("MESHD_K3S_ENV", "{A: b}", "MESH-1040", "mode 0600"),
        ("MESHD_P2P_ROEL", "worker", "MESH-1039", "did you mean 'MESHD_P2P_ROLE'?"),
        ("MESHD_P2P_ROLE", "wrker", "MESH-1022", "did you mean 'worker'?"),
        ("MESHD_P2P_ROLE", "[", "MESH-1020", "environment MESHD_P2P_ROLE"),
    ],
)
def test_what_is_wrong_in_the_environment_is_said(
    boot: Boot, name: str, value: str, code: str, says: str
) -> None:
    found = boot("", **{name: value})
    (item,) = [item for item in (*found.errors, *found.findings) if item.code == code]
    assert item.located.startswith(f"environment {name}: ")
    assert says in item.located + item.fix
    assert TOKEN not in item.located + item.fix


def test_other_variables_of_ours_are_left_alone(boot: Boot) -> None:
    found = boot("", MESHD_RUN_DIR="/run/x", MESHD_K3S_BIN="/k3s", MESHD_FINGERPRINT="x")
    assert found.errors == ()
    assert [item.code for item in found.findings] == ["MESH-1031"]  # The overlay of the file.


def test_no_two_keys_share_a_variable() -> None:
    assert len(VARIABLES) == len(ALL)
    assert variable_of(ALL["k3s-agent.args"]) == "MESHD_K3S_AGENT_ARGS"


def test_files_alone_are_judged_without_machine_and_environment(load: Load, tmp_path: Path) -> None:
    cmdline = tmp_path / "cmdline"
    cmdline.write_text("p2p.role=wrker")
    path = load.write("p2p: {network_token: TOKEN}")
    env = {"MESHD_CMDLINE_FILE": str(cmdline), "MESHD_P2P_ROLE": "wrker"}
    assert read_configuration([path], env, files_only=True).errors == ()
    assert len(read_configuration([path], env).errors) == 1
    assert os.environ.get("MESHD_P2P_ROLE") is None
