"""`meshd completion`: what a real bash makes of the script."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from meshd.cli.complete import complete_nodes
from meshd.cli.explain import explain
from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import FakeDaemon

ASK = """
source <(meshd completion bash)
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
compopt() {{ :; }}  # Only while a completion is under way.
_meshd_completion meshd
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(run_dir: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of these words."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    (run_dir / "bin").mkdir(exist_ok=True)
    program = run_dir / "bin" / "meshd"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m meshd.cli "$@"\n')
    program.chmod(0o755)
    given = " ".join(f"'{word}'" for word in ("meshd", *words))
    done = subprocess.run(
        [bash, "--norc", "-c", ASK.format(words=given)],
        env=os.environ
        | {"MESHD_RUN_DIR": str(run_dir), "PATH": f"{run_dir}/bin:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_topics_goals_and_options(tmp_path: Path) -> None:
    assert completed(tmp_path, "st") == ["status"]
    assert completed(tmp_path, "explain", "") == ["role", "genesis", "join", "vip", "codes"]
    assert completed(tmp_path, "explain", "MESH-310")[:2] == ["MESH-3101", "MESH-3102"]
    assert completed(tmp_path, "wait", "--for", "r") == ["role", "ready"]
    assert "--watch" in completed(tmp_path, "status", "--")


def test_bash_completes_the_names_of_nodes_from_the_daemon(
    tmp_path: Path, daemon: FakeDaemon
) -> None:
    assert completed(tmp_path, "explain", "join", "") == ["cell-1", "n1", "n2"]
    assert completed(tmp_path, "explain", "join", "n") == ["n1", "n2"]
    assert completed(tmp_path, "ledger", "list", "--author", "c") == ["cell-1"]


def test_without_a_daemon_no_name_is_offered(tmp_path: Path) -> None:
    assert completed(tmp_path, "explain", "join", "") == []


def test_a_daemon_that_does_not_answer_is_given_200_ms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float | None] = []
    settimeout = socket.socket.settimeout

    def noted(sock: socket.socket, seconds: float | None) -> None:
        waited.append(seconds)
        settimeout(sock, seconds)

    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "meshd.sock"))
        deaf.listen()
        monkeypatch.setattr("socket.socket.settimeout", noted)
        ctx = click.Context(explain)
        ctx.params["run_dir"] = tmp_path
        assert complete_nodes(ctx, explain.params[1], "") == []
    assert waited == [0.2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(meshd: Meshd, shell: str) -> None:
    ran = meshd("completion", shell)
    assert ran.code == 0
    assert f"_MESHD_COMPLETE={shell}_complete" in ran.out


def test_another_shell_is_a_usage_error(meshd: Meshd) -> None:
    assert meshd("completion", "tcsh").code == 2
