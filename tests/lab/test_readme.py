"""What the README shows is typed here as it stands there, in its order; `down` comes last."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from simulations.lab import removal
from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LOCAL = {"token", "config"}
"""Verbs that need no daemon: typed on the machine at hand, the others on a node."""


def shown() -> list[list[str]]:
    """Return the commands of the README's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [command for command in words if command]


def test_the_targets_of_make_that_the_readme_shows_exist() -> None:
    made = [command[1:] for command in shown() if command[0] == "make"]
    targets = re.findall(
        r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert made
    assert all(target in targets for words in made for target in words if "=" not in target)


def a_server(bench: Bench) -> str:
    """Return a node that has a seat; which ones have, their keys decide."""
    status = json.loads(bench.demo("exec", "n2", "--", "meshd", "status", "-o", "json").out)
    roles = {node["name"]: node["role"] for node in status["nodes"]}
    return str(next(name for name, role in roles.items() if role == "control-plane"))


def test_every_meshd_command_of_the_readme_works(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [words for words in shown() if words[0] != "make"]
    assert {Path(words[0]).name for words in commands} == {"meshd"}
    down = [words for words in commands if words[1:] == ["demo", "down"]]
    for words in [one for one in commands if one not in down] + down:
        if words[1] == "demo":
            run = bench.demo(*words[2:])
        elif words[1] in LOCAL:
            run = bench.meshd(*words[1:])
        else:
            where = a_server(bench) if words[1] == "kubeconfig" else "n2"
            run = bench.demo("exec", where, "--", *words)
        assert run.code == 0, f"{shlex.join(words)}: {run.out}{run.err}"
    assert removal.leftovers(bench.places) == ()
