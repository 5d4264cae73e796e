"""The gate: whoever starts k3s, only what meshd decided is let through."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ledger import Instant
from meshd.cluster import gate
from meshd.cluster.gate import permit_file, read_permit, refusal, revoke
from meshd.cluster.mark import MARK_NAME, Mark, read_mark, write_mark
from meshd.cluster.plan import Launch
from meshd.events import ClusterOrder
from meshd.holder import lease, processes
from tests.cli.fake_daemon import running
from tests.cluster.bench import (
    ADDRESSES,
    N1,
    N2,
    N3,
    N4,
    initialiser,
    k3s_paths,
    plan,
    server,
    worker,
)
from tests.cluster.laying import begin, lay

SERVER = ("/usr/local/bin/k3s", "server")
ENVIRONMENT = {"PATH": "/usr/bin"}
WRAPPER = Path(__file__).parents[2] / "packaging" / "k3s-gate"


def verdict(
    folder: Path,
    *,
    argv: tuple[str, ...] = SERVER,
    environment: dict[str, str] = ENVIRONMENT,
    newest: int | None = None,
    has_fuse: bool = True,
) -> str | None:
    """Return what the gate says on the disk that `folder` is."""
    state = folder / "state"
    config = {"K3S_CONFIG_FILE": str(k3s_paths(folder).config)}
    return refusal(
        read_permit(state),
        argv=argv,
        environment=environment | config,
        state_dir=state,
        newest_generation=newest,
        has_fuse=has_fuse,
    )


def formed(folder: Path) -> None:
    """Leave a disk as the initialiser's is once its cluster is formed."""
    assert isinstance(lay(folder, N1, initialiser()), Launch)
    begin(folder)
    assert isinstance(lay(folder, N1, initialiser(formed=True)), Launch)


def test_a_node_without_a_permit_starts_nothing(tmp_path: Path) -> None:
    assert "not given this node a part" in str(verdict(tmp_path))
    formed(tmp_path)
    assert verdict(tmp_path) is None
    revoke(tmp_path / "state", "c2" * 16)
    assert verdict(tmp_path) is None, "another cluster's permit is not this one's"
    revoke(tmp_path / "state", plan().cluster_id)
    assert "not given this node a part" in str(verdict(tmp_path))
    formed(tmp_path)
    permit_file(tmp_path / "state").write_text('{"half')
    assert "not given this node a part" in str(verdict(tmp_path))


@pytest.mark.parametrize(
    ("order", "node", "mode"),
    [(initialiser(), N1, "server"), (server(), N2, "server"), (worker(), N4, "agent")],
)
def test_what_meshd_laid_passes_as_it_was_laid(
    tmp_path: Path, order: ClusterOrder, node: str, mode: str
) -> None:
    launch = lay(tmp_path, node, order)  # type: ignore[arg-type]  # A NodeId is a str.
    assert isinstance(launch, Launch)
    assert verdict(tmp_path, argv=launch.argv, environment=dict(launch.environment)) is None
    other = "agent" if mode == "server" else "server"
    assert f"as `{other}`" in str(verdict(tmp_path, argv=("k3s", other)))
    assert "as `nothing`" in str(verdict(tmp_path, argv=("k3s",)))


@pytest.mark.parametrize(
    "flag",
    [
        "--cluster-init", "--server=https://10.9.9.9:6443", "--token=other", "-t=x",
        "--node-name=me", "--node-ip=10.9.9.9", "--data-dir=/elsewhere", "--cluster-reset",
        "--datastore-endpoint=mysql://x", "--config=/elsewhere",
    ],
)  # fmt: skip
def test_a_flag_in_the_unit_that_says_where_k3s_belongs_is_refused(
    tmp_path: Path, flag: str
) -> None:
    formed(tmp_path)
    assert "which meshd decides" in str(verdict(tmp_path, argv=(*SERVER, flag)))


@pytest.mark.parametrize("name", ["K3S_TOKEN", "K3S_URL", "K3S_CLUSTER_INIT", "K3S_NODE_NAME"])
def test_a_variable_that_says_it_is_refused_and_its_value_not_shown(
    tmp_path: Path, name: str
) -> None:
    formed(tmp_path)
    said = str(verdict(tmp_path, environment=ENVIRONMENT | {name: "hush"}))
    assert name in said
    assert "hush" not in said


def test_a_later_drop_in_that_says_it_is_refused(tmp_path: Path) -> None:
    formed(tmp_path)
    later = k3s_paths(tmp_path).drop_in.with_name("60-mine.yaml")
    later.write_text("node-label: [a=b]\n")
    assert verdict(tmp_path) is None
    later.write_text("cluster-init: true\n")
    assert "60-mine.yaml has cluster-init" in str(verdict(tmp_path))


def test_an_edited_or_removed_drop_in_of_meshds_own_is_refused(tmp_path: Path) -> None:
    formed(tmp_path)
    drop_in = k3s_paths(tmp_path).drop_in
    content = drop_in.read_bytes()
    drop_in.write_bytes(content.replace(b"server: ", b"cluster-init: true\n#"))
    assert "not as meshd wrote it" in str(verdict(tmp_path))
    drop_in.unlink()
    assert "is gone" in str(verdict(tmp_path))


def test_another_configuration_file_is_refused(tmp_path: Path) -> None:
    formed(tmp_path)
    said = refusal(
        read_permit(tmp_path / "state"),
        argv=SERVER,
        environment={"K3S_CONFIG_FILE": "/elsewhere.yaml"},
        state_dir=tmp_path / "state",
        newest_generation=None,
        has_fuse=True,
    )
    assert "K3S_CONFIG_FILE names /elsewhere.yaml" in str(said)


def test_a_disk_of_another_cluster_is_refused(tmp_path: Path) -> None:
    formed(tmp_path)
    mark = tmp_path / "data/server" / MARK_NAME
    mark.write_bytes(mark.read_bytes().replace(plan().cluster_id.encode(), b"ff" * 16))
    assert "belongs to cluster ffffffff" in str(verdict(tmp_path))


def test_a_lost_database_is_refused_where_an_empty_one_would_be_a_second_cluster(
    tmp_path: Path,
) -> None:
    lay(tmp_path, N1, initialiser())
    begin(tmp_path)
    lay(tmp_path, N1, initialiser())
    shutil.rmtree(tmp_path / "data/server/db")
    assert "database is gone" in str(verdict(tmp_path))


def test_a_formed_cluster_is_left_behind_only_by_a_later_generation(tmp_path: Path) -> None:
    formed(tmp_path)
    for newest in (None, 0, 1):
        assert verdict(tmp_path, newest=newest) is None
    assert "are at generation 2" in str(verdict(tmp_path, newest=2))


@pytest.mark.parametrize(
    ("left_s", "passes"), [(None, False), (lease.START_MIN_S - 1, False), (60.0, True)]
)
def test_before_the_cluster_is_formed_the_lease_decides(
    tmp_path: Path, left_s: float | None, *, passes: bool
) -> None:
    order = replace(initialiser(), lease_until=Instant(0.0))
    assert isinstance(lay(tmp_path, N1, order), Launch)
    (tmp_path / "state/k3s").mkdir()
    if left_s is not None:
        until = processes.boot_time_s() + left_s
        lease.extend(tmp_path / "state/k3s", plan().cluster_id, until)
    assert (verdict(tmp_path) is None) is passes


def test_before_the_cluster_is_formed_only_whoever_puts_a_fuse_beside_k3s_may_start_it(
    tmp_path: Path,
) -> None:
    order = replace(initialiser(), lease_until=Instant(0.0))
    assert isinstance(lay(tmp_path, N1, order), Launch)
    (tmp_path / "state/k3s").mkdir()
    lease.extend(tmp_path / "state/k3s", plan().cluster_id, processes.boot_time_s() + 60)
    assert verdict(tmp_path, has_fuse=True) is None
    assert "only meshd starts k3s" in str(verdict(tmp_path, has_fuse=False))


def test_a_full_disk_between_drop_in_and_permit_keeps_no_k3s_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formed(tmp_path)
    real, calls = gate.grant, list[gate.Permit]()

    def full(state_dir: Path, permit: gate.Permit) -> None:
        calls.append(permit)
        if len(calls) == stop:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(state_dir, permit)

    monkeypatch.setattr(gate, "grant", full)
    for stop in (1, 2):
        calls.clear()
        order = replace(initialiser(formed=True), join=(ADDRESSES[N3], ADDRESSES[N2])[: 3 - stop])
        with pytest.raises(OSError, match="No space"):
            lay(tmp_path, N1, order)
        assert verdict(tmp_path) is None


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


def systemctl(folder: Path, *, knows: str) -> None:
    """Let systemd know this unit."""
    script = folder / "bin/systemctl"
    says = "{ path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s server ; ignore_errors=no ; }"
    script.write_text(f"#!/bin/sh\nfor unit; do :; done\n[ $unit != {knows} ] || echo '{says}'\n")
    script.chmod(0o755)


def test_a_unit_that_systemd_does_not_know_starts_nothing(tmp_path: Path, working: Call) -> None:
    formed(tmp_path)
    systemctl(tmp_path, knows="k3s.service")
    assert working("--unit", "k3s").returncode == 0
    done = working("--unit", "k3ss")
    assert (done.returncode, "MESH-5035" in done.stderr) == (4, True)
    assert "k3ss.service" in done.stderr
