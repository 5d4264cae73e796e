"""The gate: whoever starts k3s, only what meshd decided is let through."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import Instant
from meshd.cluster import gate
from meshd.cluster.gate import permit_file, read_permit, refusal, revoke
from meshd.cluster.mark import MARK_NAME
from meshd.cluster.plan import Launch
from meshd.events import ClusterOrder
from meshd.holder import lease, processes
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
from tests.cluster.laying import begin, formed, lay

SERVER = ("/usr/local/bin/k3s", "server")
ENVIRONMENT = {"PATH": "/usr/bin"}


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
