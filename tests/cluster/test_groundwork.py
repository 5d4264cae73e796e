from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from ledger import NodeId
from meshd.cluster.groundwork import Groundwork, Surroundings, Tokens
from meshd.cluster.kubevip import Address, Interface, flannel_interface
from meshd.cluster.mark import MARK_NAME
from meshd.cluster.obstacle import Obstacle
from meshd.cluster.plan import Launch
from meshd.config.schema import K3sArguments
from meshd.events import ClusterOrder
from tests.cluster.bench import (
    ADDRESSES,
    AUTHORITIES,
    N1,
    N2,
    N4,
    NAMES,
    SECRETS,
    SETTINGS,
    groundwork,
    initialiser,
    plan,
    sealed,
    server,
    surroundings,
    tree,
    worker,
)
from tests.cluster.laying import begin, drop_in, expect_obstacle, lay
from tests.cluster.power import power_cut_before


def test_an_initialiser_is_prepared_with_mark_authorities_and_token(tmp_path: Path) -> None:
    assert isinstance(lay(tmp_path, N1, initialiser()), Launch)
    mark = json.loads((tmp_path / "data/server" / MARK_NAME).read_bytes())
    assert (mark["cluster_id"], mark["generation"]) == (plan().cluster_id, 1)
    assert mark["node_name"] == NAMES[N1]
    for name, content in AUTHORITIES:
        assert (tmp_path / "data/server/tls" / name).read_bytes() == content
    token = (tmp_path / "state/cluster/token").read_text(encoding="ascii")
    assert token == f"K10{SECRETS.ca_hash}::server:{SECRETS.server_token}"
    assert drop_in(tmp_path)["cluster-init"] is True


def test_secrets_that_the_plan_does_not_name_begin_nothing(tmp_path: Path) -> None:
    held = [SECRETS]
    work = replace(groundwork(N1, tmp_path), secrets=lambda: held[0])
    tokens = work.tokens(initialiser())
    assert isinstance(tokens, Tokens)
    held[0] = replace(SECRETS, server_token="0e" * 32)  # Renewed meanwhile.
    for found in (work.tokens(initialiser()), work.lay(initialiser(), tokens, surroundings(N1))):
        assert isinstance(found, Obstacle)
        assert (found.state, "other secrets" in found.sentence) == ("failed", True)
    assert tree(tmp_path) == {}
    held[0] = SECRETS
    assert isinstance(work.lay(initialiser(), tokens, surroundings(N1)), Launch)


def test_a_power_cut_while_it_is_prepared_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    lay(whole, N1, initialiser())
    expected = tree(whole / "data")
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for call in count():
        folder = tmp_path / str(call)
        folder.mkdir()
        with power_cut_before(call, monkeypatch, folder) as made:
            lay(folder, N1, initialiser())
        cut = "cut" in made
        mark = folder / "data/server" / MARK_NAME
        note = folder / "state/cluster/started" / plan().cluster_id
        if (folder / "etc/config.yaml.d/50-meshd.yaml").exists():
            assert note.exists(), "the drop-in came before the note of a first start"
        assert mark.exists() or not note.exists(), "the note came before the mark"
        assert cut or note.exists(), "what was prepared is durable"
        # The next start of the daemon goes on.
        assert isinstance(lay(folder, N1, initialiser()), Launch)
        after = {n: c for n, c in tree(folder / "data").items() if not n.endswith(".new")}
        assert after == expected
        if not cut:
            break
    assert call > 60


def test_preparing_again_changes_no_file(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    lay(tmp_path, N1, initialiser())
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_a_worker_never_gets_the_server_token(tmp_path: Path) -> None:
    assert isinstance(lay(tmp_path, N4, worker()), Launch)
    token = (tmp_path / "state/cluster/token").read_text(encoding="ascii")
    assert token == f"K10{SECRETS.ca_hash}::node:{SECRETS.agent_token}"
    assert not any(SECRETS.server_token.encode() in text for text in tree(tmp_path).values())


def test_a_joining_server_gets_no_authorities_from_us(tmp_path: Path) -> None:
    assert isinstance(lay(tmp_path, N2, server()), Launch)
    assert not (tmp_path / "data/server/tls").exists()
    assert drop_in(tmp_path)["server"] == f"https://{ADDRESSES[N1]}:6443"


def test_no_vip_and_no_manifest_before_the_cluster_is_formed(tmp_path: Path) -> None:
    users = tmp_path / "data/server/manifests/mine/app.yaml"
    users.parent.mkdir(parents=True)
    users.write_text("kind: Namespace\n")
    lay(tmp_path, N1, initialiser())
    manifests = tmp_path / "data/server/manifests"
    assert set(tree(manifests)) == {"mine/app.yaml", "mine/app.yaml.skip"}
    begin(tmp_path)
    (manifests / "coredns.yaml").write_text("of k3s itself\n")
    lay(tmp_path, N1, initialiser())
    assert not (manifests / "coredns.yaml.skip").exists(), "only the users' are held back"
    lay(tmp_path, N1, initialiser(formed=True))
    assert set(tree(manifests)) == {
        "coredns.yaml", "meshd-cluster.yaml", "meshd-kube-vip.yaml", "mine/app.yaml",
    }  # fmt: skip
    assert "vip_interface" in (manifests / "meshd-kube-vip.yaml").read_text()


def test_a_manifest_that_the_user_skips_stays_skipped(tmp_path: Path) -> None:
    manifests = tmp_path / "data/server/manifests"
    manifests.mkdir(parents=True)
    for name in ("app.yaml", "app.yaml.skip"):
        (manifests / name).write_text("")
    lay(tmp_path, N1, initialiser())
    lay(tmp_path, N1, initialiser(formed=True))
    assert (manifests / "app.yaml.skip").exists()


@pytest.mark.parametrize(
    "foreign",
    ["db/etcd/member/wal/0.wal", "db/state.db", "tls/server-ca.crt", "token", "cred/passwd"],
)
@pytest.mark.parametrize("order", [initialiser(), server(), worker()])
def test_a_cluster_that_meshd_did_not_make_is_left_alone(
    tmp_path: Path, foreign: str, order: ClusterOrder
) -> None:
    file = tmp_path / "data/server" / foreign
    file.parent.mkdir(parents=True)
    file.write_text("theirs")
    before = tree(tmp_path)
    node = {"initialiser": N1, "server": N2}.get(order.seat, N4)
    expect_obstacle(lay(tmp_path, node, order), "failed", "meshd did not make")
    assert tree(tmp_path) == before


def test_an_agent_that_meshd_did_not_start_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "data/agent/client-kubelet.crt"
    file.parent.mkdir(parents=True)
    file.write_text("theirs")
    expect_obstacle(lay(tmp_path, N4, worker()), "failed", "meshd did not make")


def test_the_files_of_another_cluster_are_not_started(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    other = replace(initialiser(), plan=replace(plan(), cluster_id="d2" * 16))
    before = tree(tmp_path)
    expect_obstacle(lay(tmp_path, N1, other), "failed", "belongs to cluster c1c1c1c1")
    assert tree(tmp_path) == before


def test_an_sqlite_database_is_not_turned_into_a_cluster(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    sqlite = tmp_path / "data/server/db/state.db"
    sqlite.parent.mkdir()
    sqlite.write_text("")
    expect_obstacle(lay(tmp_path, N1, initialiser()), "failed", "SQLite")


def test_a_member_of_etcd_is_not_started_as_a_worker(tmp_path: Path) -> None:
    lay(tmp_path, N2, server())
    begin(tmp_path)
    order = replace(worker(), sealed=sealed(N2, "agent-token"), plan=plan(seats=(N1,)))
    expect_obstacle(lay(tmp_path, N2, order), "failed", "member's database")


def test_a_damaged_mark_stops_everything(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    (tmp_path / "data/server" / MARK_NAME).write_text('{"cluster_id": "c1')
    expect_obstacle(lay(tmp_path, N1, initialiser()), "failed", "cannot be read")


def test_k3s_is_not_started_under_another_name(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    renamed = replace(groundwork(N1, tmp_path), node_name="n1-ffffffff")
    expect_obstacle(lay_with(renamed, N1), "failed", NAMES[N1])


def test_a_server_keeps_its_address_for_life(tmp_path: Path) -> None:
    lay(tmp_path, N1, initialiser())
    first, *others = plan().seats
    moved = replace(plan(), seats=(replace(first, node_ip="10.0.0.99"), *others))
    result = lay(tmp_path, N1, replace(initialiser(), plan=moved))
    expect_obstacle(result, "failed", "10.0.0.11")


def test_a_worker_keeps_the_address_of_its_first_start(tmp_path: Path) -> None:
    lay(tmp_path, N4, worker())
    ground = groundwork(N4, tmp_path)
    tokens = ground.tokens(worker())
    assert isinstance(tokens, Tokens)
    ground.lay(worker(), tokens, replace(surroundings(N4), node_ip="10.0.0.77"))
    assert drop_in(tmp_path)["node-ip"] == ADDRESSES[N4]


def test_waiting_says_for_what(tmp_path: Path) -> None:
    ground = groundwork(N1, tmp_path)
    no_k3s = replace(ground, paths=replace(ground.paths, binary=None))
    nowhere = replace(surroundings(N1), environment={"MESHD_K3S_BIN": "/nonexistent/k3s"})
    expect_obstacle(lay_with(no_k3s, N1, nowhere), "waiting", "k3s is not installed")
    held = lay(tmp_path, N1, replace(initialiser(), hold="this machine's clock is wrong"))
    expect_obstacle(held, "waiting", "this machine's clock is wrong")
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("own", "servers", "fits_server", "fits_worker"),
    [
        ("v1.34.1+k3s1", "v1.34.7+k3s2", True, True),
        ("v1.33.4+k3s1", "v1.34.1+k3s1", False, True),
        ("v1.35.0+k3s1", "v1.34.1+k3s1", False, False),
        ("v2.0.0", "v1.34.1+k3s1", False, False),
        ("", "v1.34.1+k3s1", True, True),
        ("v1.34.1+k3s1", "", True, True),
    ],
)
def test_the_first_start_waits_for_a_version_that_fits_the_servers(
    tmp_path: Path, own: str, servers: str, *, fits_server: bool, fits_worker: bool
) -> None:
    for node, order, fits in ((N2, server(), fits_server), (N4, worker(), fits_worker)):
        ground = groundwork(node, tmp_path / node)
        told = replace(order, servers_version=servers)
        tokens = ground.tokens(told)
        assert isinstance(tokens, Tokens)
        found = ground.lay(told, tokens, replace(surroundings(node), version=own))
        if fits:
            assert isinstance(found, Launch)
        else:
            expect_obstacle(found, "waiting", f"k3s here is {own} and on the servers {servers}")


def test_a_member_is_never_kept_from_starting_by_its_version(tmp_path: Path) -> None:
    assert isinstance(lay(tmp_path, N2, server()), Launch)
    begin(tmp_path)
    ground = groundwork(N2, tmp_path)
    upgrading = replace(server(), servers_version="v1.34.1+k3s1")
    tokens = ground.tokens(upgrading)
    assert isinstance(tokens, Tokens)
    newer = replace(surroundings(N2), version="v1.35.0+k3s1")
    assert isinstance(ground.lay(upgrading, tokens, newer), Launch)


def test_k3s_is_taken_from_the_named_place_then_from_path(tmp_path: Path) -> None:
    ground = groundwork(N1, tmp_path)
    ground = replace(ground, paths=replace(ground.paths, binary=None))
    named = replace(surroundings(N1), environment={"MESHD_K3S_BIN": "/bin/true", "PATH": "/x"})
    launched = lay_with(ground, N1, named)
    assert isinstance(launched, Launch)
    assert launched.argv[0] == "/bin/true"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/k3s").symlink_to("/bin/true")
    found = replace(surroundings(N1), environment={"PATH": str(tmp_path / "bin")})
    launched = lay_with(ground, N1, found)
    assert isinstance(launched, Launch)
    assert launched.argv[0] == str(tmp_path / "bin/k3s")


def test_settings_that_contradict_the_order_are_named(tmp_path: Path) -> None:
    settings = replace(SETTINGS, k3s=K3sArguments(args=("--cluster-init",)))
    expect_obstacle(lay(tmp_path, N1, initialiser(), settings), "failed", "--cluster-init")
    other = tmp_path / "etc/config.yaml.d/99-mine.yaml"
    other.parent.mkdir(parents=True)
    other.write_text("server: https://10.9.9.9:6443\n")
    expect_obstacle(lay(tmp_path, N1, initialiser()), "failed", "99-mine.yaml has server")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("server: https://10.9.9.9:6443\n---\n{}\n", "has server"),
        ("{}\n---\nserver: https://10.9.9.9:6443\n", "has server"),
        ("cluster-init: true\nx: !site 1\n", "is not YAML"),
        ("cluster-init: true\nx: 2026-99-99\n", "is not YAML"),
        ("x: [\n", "is not YAML"),
        ("x: \0\n", "is not YAML"),
    ],
)
@pytest.mark.parametrize("name", ["config.yaml", "config.yaml.d/99-site.yml"])
def test_a_file_of_k3s_that_cannot_be_checked_is_no_less_an_obstacle(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    other = tmp_path / "etc" / name
    other.parent.mkdir(parents=True)
    other.write_text(content)
    expect_obstacle(lay(tmp_path, N1, initialiser()), "failed", f"{other} {words}")
    other.write_text("# Nothing.\n")
    assert isinstance(lay(tmp_path, N1, initialiser()), Launch)


def test_tokens_must_be_those_of_the_plan(tmp_path: Path) -> None:
    ground = groundwork(N2, tmp_path)
    expect_obstacle_in(ground, replace(server(), sealed=()), "waiting", "not sealed to this node")
    forged = replace(plan(), token_commitment="00" * 32)
    expect_obstacle_in(ground, replace(server(), plan=forged), "failed", "not the one of the plan")
    theirs = sealed(N4, "server-token", "agent-token")
    expect_obstacle_in(ground, replace(server(), sealed=theirs), "failed", "sealed again")
    lost = replace(plan(), ca_hash="00" * 32)
    expect_obstacle_in(
        groundwork(N1, tmp_path), replace(initialiser(), plan=lost), "failed", "state was lost"
    )


def test_flannel_is_named_an_interface_only_if_it_would_take_the_nodes_address() -> None:
    vip_first = Interface(
        ifname="eth0",
        addr_info=(
            Address(local="fd00::1", prefixlen=64),
            Address(local="10.0.0.50", prefixlen=32),
            Address(local="10.0.0.11", prefixlen=24),
        ),
    )
    assert flannel_interface((vip_first,), "10.0.0.11") is None
    assert flannel_interface((vip_first,), "fd00::1") == "eth0"
    assert flannel_interface((vip_first,), None) is None


def lay_with(
    ground: Groundwork, node: NodeId, around: Surroundings | None = None
) -> Launch | Obstacle:
    tokens = ground.tokens(initialiser())
    assert isinstance(tokens, Tokens)
    return ground.lay(initialiser(), tokens, around or surroundings(node))


def expect_obstacle_in(ground: Groundwork, order: ClusterOrder, state: str, words: str) -> None:
    result = ground.tokens(order)
    assert isinstance(result, Obstacle), result
    assert result.state == state
    assert words in result.sentence
