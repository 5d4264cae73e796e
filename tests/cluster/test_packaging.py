"""What packaging/ puts before k3s of a unit: with a meshd that works, and with a broken one."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from meshd.cluster import gate
from meshd.cluster.gate import permit_file, read_permit
from meshd.cluster.mark import MARK_NAME, Mark, read_mark, write_mark
from tests.cli.fake_daemon import running
from tests.cluster.bench import N1, N4, initialiser, k3s_paths, plan, worker
from tests.cluster.laying import begin, formed, lay

SERVER = ("/usr/local/bin/k3s", "server")
PACKAGING = Path(__file__).parents[2] / "packaging"
WRAPPER = PACKAGING / "k3s-gate"
INSTALLED = "/usr/lib/meshd/k3s-gate"

Call = Callable[..., subprocess.CompletedProcess[str]]


def caller(folder: Path, meshd: str) -> Call:
    """Return a caller of the wrapper on a machine where `meshd` is this shell script."""
    (folder / "bin").mkdir()
    script = folder / "bin/meshd"
    script.write_text(f"#!/bin/sh\n{meshd}\n")
    script.chmod(0o755)
    environment = {
        "PATH": f"{folder}/bin:/usr/bin:/bin",
        "MESHD_STATE_DIR": str(folder / "state"),
        "MESHD_RUN_DIR": str(folder / "run"),
        "K3S_CONFIG_FILE": str(k3s_paths(folder).config),
    }

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(WRAPPER), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return call


@pytest.fixture
def broken(tmp_path: Path) -> Call:
    """Call the wrapper where meshd cannot run."""
    says = "echo 'ModuleNotFoundError: No module named msgspec' >&2; exit 1"
    return caller(tmp_path, says)


@pytest.fixture
def working(tmp_path: Path) -> Iterator[Call]:
    """Call the wrapper where meshd is this one, beside a daemon that has heard the others."""
    (tmp_path / "run").mkdir()
    with running(tmp_path / "run"):
        yield caller(tmp_path, f'exec {sys.executable} -m meshd.cli "$@"')


def test_a_broken_meshd_keeps_no_formed_k3s_from_starting(tmp_path: Path, broken: Call) -> None:
    formed(tmp_path)
    done = broken("--", "k3s", "server")
    assert (done.returncode, "starts all the same" in done.stderr) == (0, True)
    assert broken("--exec", "--", "echo", "this is", "k3s").stdout == "this is k3s\n"
    shutil.rmtree(tmp_path / "data/server/db")
    done = broken("--exec", "--", "echo", "k3s")
    assert (done.returncode, done.stdout) == (4, "")
    assert "is gone" in done.stderr


def test_a_broken_meshd_lets_nothing_else_start(tmp_path: Path, broken: Call) -> None:
    assert broken("--", "k3s", "server").returncode == 4
    lay(tmp_path, N1, initialiser())
    begin(tmp_path)
    done = broken("--", "k3s", "server")
    assert (done.returncode, "no cluster is known to be formed" in done.stderr) == (4, True)
    formed(tmp_path)
    mark = tmp_path / "data/server" / MARK_NAME
    mark.write_bytes(mark.read_bytes().replace(plan().cluster_id.encode(), b"ff" * 16))
    assert broken("--", "k3s", "server").returncode == 4


def test_a_broken_meshd_starts_no_k3s_in_the_middle_of_a_reset(
    tmp_path: Path, broken: Call
) -> None:
    formed(tmp_path)
    permit = read_permit(tmp_path / "state")
    assert permit is not None
    gate.grant(tmp_path / "state", msgspec.structs.replace(permit, reset=True))
    for words in (("server", "--cluster-init"), ("server",), ("server", "--cluster-reset")):
        done = broken("--", "k3s", *words)
        assert (done.returncode, "membership is being reset" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    ("permitted", "marked", "code"), [(1, 0, 4), (10, 9, 4), (1, 1, 0), (9, 10, 0)]
)
def test_a_broken_meshd_starts_no_database_of_before_a_reset(
    tmp_path: Path, broken: Call, permitted: int, marked: int, code: int
) -> None:
    formed(tmp_path)
    permit, mark = read_permit(tmp_path / "state"), read_mark(tmp_path / "data/server")
    assert permit is not None
    assert isinstance(mark, Mark)
    gate.grant(tmp_path / "state", msgspec.structs.replace(permit, epoch=permitted))
    write_mark(tmp_path / "data/server", msgspec.structs.replace(mark, epoch=marked))
    done = broken("--", "k3s", "server")
    assert (done.returncode, "of before the reset" in done.stderr) == (code, code == 4)


def test_a_broken_meshd_goes_by_files_of_before_there_were_epochs(
    tmp_path: Path, broken: Call
) -> None:
    formed(tmp_path)
    for file in (permit_file(tmp_path / "state"), tmp_path / "data/server" / MARK_NAME):
        content = msgspec.json.decode(file.read_bytes())
        del content["epoch"]
        content.pop("reset", None)
        file.write_bytes(msgspec.json.encode(content) + b"\n")
    assert broken("--", "k3s", "server").returncode == 0


def test_a_permit_of_another_version_keeps_only_a_k3s_down_that_is_not_formed(
    tmp_path: Path, working: Call
) -> None:
    def as_an_older_meshd_wrote_it() -> None:
        file = permit_file(tmp_path / "state")
        whole = file.read_text()
        file.write_text(whole.replace('"alone":false,', ""))
        assert file.read_text() != whole

    lay(tmp_path, N1, initialiser())
    begin(tmp_path)
    as_an_older_meshd_wrote_it()
    done = working("--", *SERVER)
    assert (done.returncode, "MESH-5034" in done.stderr) == (4, True)
    formed(tmp_path)
    as_an_older_meshd_wrote_it()
    done = working("--", *SERVER)
    assert (done.returncode, "starts all the same" in done.stderr) == (0, True)


def test_a_broken_meshd_keeps_no_worker_down(tmp_path: Path, broken: Call) -> None:
    lay(tmp_path, N4, worker())
    assert broken("--", "k3s", "agent").returncode == 0


def test_the_wrapper_obeys_a_meshd_that_works(tmp_path: Path, working: Call) -> None:
    formed(tmp_path)
    assert working("--", *SERVER).returncode == 0
    done = working("--", *SERVER, "--cluster-init")
    assert (done.returncode, "MESH-5031" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    "words",
    [(), ("--",), ("--unit",), ("--unit", ""), ("--uint", "k3s"), ("k3s", "server"),
     ("--exec",), ("--exec", "--"), ("--exec", "--unit", "k3s"), ("--unit", "k3s", "--", "k3s")],
)  # fmt: skip
def test_the_wrapper_starts_nothing_if_it_is_called_wrongly(
    tmp_path: Path, broken: Call, words: tuple[str, ...]
) -> None:
    formed(tmp_path)
    done = broken(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("k3s-gate: called wrongly")


def test_a_meshd_that_ends_with_2_is_broken_like_any_other(tmp_path: Path) -> None:
    formed(tmp_path)
    # An older meshd does not know an option; a Python that cannot open its script says it so, too.
    call = caller(tmp_path, "exit 2")
    done = call("--", "k3s", "server")
    assert (done.returncode, "broken (exit code 2)" in done.stderr) == (0, True)


def systemctl(folder: Path, *, knows: str, starts: str = "/usr/local/bin/k3s server") -> None:
    """Let systemd know this unit, and no other."""
    script = folder / "bin/systemctl"
    says = f"{{ path=/usr/local/bin/k3s ; argv[]={starts} ; ignore_errors=no }}"
    script.write_text(f"#!/bin/sh\nfor unit; do :; done\n[ $unit != {knows} ] || echo '{says}'\n")
    script.chmod(0o755)


def test_a_unit_that_systemd_does_not_know_starts_nothing(tmp_path: Path, working: Call) -> None:
    formed(tmp_path)
    systemctl(tmp_path, knows="k3s.service")
    assert working("--unit", "k3s").returncode == 0
    done = working("--unit", "k3ss")
    assert (done.returncode, "MESH-5035" in done.stderr) == (4, True)
    assert "k3ss.service" in done.stderr


@pytest.mark.parametrize(("k3s", "code"), [("server", 0), ("server --cluster-init", 4)])
def test_the_drop_in_for_systemd_asks_before_its_unit_starts_and_after_meshds_did(
    tmp_path: Path, working: Call, k3s: str, code: int
) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(PACKAGING / "systemd/k3s.service.d/50-meshd-gate.conf")
    assert unit["Unit"]["After"] == "meshd.service"
    program, *words = unit["Service"]["ExecStartPre"].split()
    assert program == INSTALLED
    formed(tmp_path)
    systemctl(tmp_path, knows="k3s.service", starts=f"/usr/local/bin/k3s {k3s}")
    assert working(*(word.replace("%n", "k3s.service") for word in words)).returncode == code


@pytest.mark.parametrize(("meshd", "printed"), [("exit 0", "k3s server --x\n"), ("exit 4", "")])
def test_the_fragment_for_openrc_makes_the_gate_what_is_supervised_and_it_becomes_k3s(
    tmp_path: Path, meshd: str, printed: str
) -> None:
    call = caller(tmp_path, meshd)
    # As k3s' own script has it, which is written with its log in command_args, and sourced thus.
    script = f"""
command="/usr/bin/echo"
command_args="k3s server --x
    >>{tmp_path}/k3s.log 2>&1"
set -o allexport
. {PACKAGING}/openrc/k3s.env
set +o allexport
eval printf '"%s\\n"' "$command" $command_args
"""
    subprocess.run(["sh", "-euc", script], check=True)
    log = tmp_path / "k3s.log"
    program, *words = log.read_text().splitlines()
    assert (program, words) == (
        INSTALLED,
        ["--exec", "--", "/usr/bin/echo", "k3s", "server", "--x"],
    )
    assert call(*words).stdout == printed
