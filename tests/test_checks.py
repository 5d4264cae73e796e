"""Each check of `make check` fails when it should: a copy of the tree, broken in one place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ledger", "roles", "meshd", "simulations")
BIN = Path(sys.executable).parent

IMPORTS = [
    ("ledger/_replica.py", "import time", "The core does no I/O"),
    ("roles/_election.py", "import random\nimport socket", "The core does no I/O"),
    ("meshd/node/_node.py", "import trio", "The core does no I/O"),
    ("ledger/_replica.py", "import roles", "Dependencies point inwards"),
    ("meshd/schema.py", "import meshd.node", "Inside meshd"),
    ("meshd/novelty.py", "X = 1", "Inside meshd"),
    ("meshd/storage/_store.py", "import libp2p", "libp2p has one home"),
    ("simulations/model/world.py", "import trio", "The simulated world"),
    ("simulations/standin/etcd.py", "import ledger", "The stand-in"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def append(path: Path, text: str) -> None:
    before = path.read_text(encoding="utf-8") if path.exists() else '"""New."""\n'
    path.write_text(f"{before}\n{text}\n", encoding="utf-8")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(("path", "text", "contract"), IMPORTS)
def test_an_import_against_the_rules_is_found(
    copy: Path, path: str, text: str, contract: str
) -> None:
    append(copy / path, text)
    result = run(copy, "lint-imports", "--no-cache")
    assert result.returncode == 1, result.stdout
    broken = [line for line in result.stdout.splitlines() if line.endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken), result.stdout


def test_the_tree_itself_keeps_all_contracts(copy: Path) -> None:
    result = run(copy, "lint-imports", "--no-cache")
    assert result.returncode == 0, result.stdout


def test_an_effect_that_nobody_performs_is_found(copy: Path) -> None:
    events = copy / "meshd/events.py"
    text = events.read_text(encoding="utf-8")
    text = text.replace("Seal | Apply | Note", "Seal | Apply | Note | Forgotten")
    text = text.replace("Effect = ", "class Forgotten: ...\n\n\nEffect = ")
    events.write_text(text, encoding="utf-8")
    result = run(copy, "mypy", "-p", "meshd.daemon", "--cache-dir", str(ROOT / ".mypy_cache"))
    assert result.returncode == 1, result.stdout
    assert 'Argument 1 to "assert_never" has incompatible type "Forgotten"' in result.stdout


def test_global_randomness_in_the_core_is_found(copy: Path) -> None:
    append(copy / "roles/_election.py", "import random\n\nLUCK = random.random()")
    result = run(copy, "ruff", "check", "--no-cache", "roles")
    assert result.returncode == 1, result.stdout
    assert "TID251" in result.stdout
