"""An initialiser that is lost, with the k3s that MESHD_K3S_BIN names, its containers and mounts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from meshd.errors import MeshdError
from simulations.lab import cgroups, glance, network, pods
from simulations.lab.laboratory import Laboratory
from simulations.lab.places import NodePlaces
from simulations.lab.servers import Unanswered, server_on
from tests.lab.conftest import Bench
from tests.lab.test_generations import GIVING_UP_S, generations, initialiser

K3S = os.environ.get("MESHD_K3S_BIN")
IMAGES = os.environ.get("MESHD_K3S_IMAGES")

pytestmark = [
    pytest.mark.lab,
    pytest.mark.lab_long,
    pytest.mark.k3s,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(K3S is None, reason="MESHD_K3S_BIN names no k3s"),
]

# k3s promotes a learner every 15 s at best, and a kubelet takes its time beside others.
WHOLE_S = 600.0


def up(bench: Bench, nodes: int, *, boots: bool = True) -> Laboratory:
    """Boot machines that run pods with a real k3s; their control plane is three."""
    assert K3S is not None
    images = Path(IMAGES) if IMAGES else None
    try:
        pods.find_runtime(Path(K3S), images)
    except MeshdError as error:
        pytest.skip(error.render())
    return bench.up(nodes=nodes, k3s=Path(K3S), images=images, boots=boots)


def static_pod(built: Laboratory) -> dict[str, object]:
    """Return a pod as a user lays it on the disk: a kubelet runs it without being told."""
    assert built.known.runtime is not None
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "users-own", "namespace": "kube-system"},
        "spec": {
            "hostNetwork": True,
            "containers": [{"name": "c", "image": built.known.runtime.pause}],
        },
    }


def is_whole(built: Laboratory) -> bool:
    """Whether every node is formed and ready, and three servers vote in one etcd."""
    for one in glance.look(built):
        if one.status is None or one.status["genesis"]["phase"] != "formed":
            return False
        me = one.status["node"]["id"]
        if next(n["k3s"] for n in one.status["nodes"] if n["id"] == me) != "ready":
            return False
    servers = [node for node in built.nodes() if (node.k3s_folder / "server/db").is_dir()]
    try:
        return len(servers) == 3 and all(len(server_on(node).voters()) == 3 for node in servers)
    except Unanswered:
        return False


def shims(node: NodePlaces) -> list[int]:
    """Return containerd's shims on a node: each holds a pod."""
    found = []
    group = cgroups.processes(node.namespace, cgroups.of_this_host())
    for pid in {*network.pids(node.namespace), *group}:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except FileNotFoundError:
            continue
        found += [pid] if name.startswith("containerd-shim") else []
    return sorted(found)


def mounts_of(node: NodePlaces, below: str) -> list[str]:
    """Return what is mounted below a folder of a node that runs."""
    pid = node.init.read_text(encoding="ascii")
    lines = Path(f"/proc/{pid}/mounts").read_text(encoding="utf-8").splitlines()
    return [at for at in (line.split(" ")[1] for line in lines) if at.startswith(below)]


def test_a_real_initialiser_lost_right_after_its_start_is_done_without_and_joins_later(
    bench: Bench,
) -> None:
    built = up(bench, nodes=5)
    found: list[str] = []

    def began() -> bool:
        found[:] = filter(None, [initialiser(built)])
        return bool(found)

    bench.wait_until("the initialiser's database", began, limit_s=180)
    first = found[0]
    built.kill(first)
    others = [name for name in built.known.names() if name != first]
    bench.wait_until(
        "the next generation",
        lambda: generations(built, others) == {2},
        limit_s=GIVING_UP_S + WHOLE_S,
    )
    built.start(first)
    bench.wait_until("all to be whole", lambda: is_whole(built), limit_s=WHOLE_S)
    assert sorted(one.generation or 0 for one in bench.clusters()) in ([2], [1, 2])
    aside = built.node(first).k3s_folder / "set-aside"
    assert list(aside.glob("*/server/db/etcd/member/wal")), "the old database lies aside"


def test_a_cut_off_machines_containers_and_mounts_end_when_its_database_is_set_aside(
    bench: Bench,
) -> None:
    """A user's static pod runs before DONE; the machine is cut off, and never powered off."""
    built = up(bench, nodes=4, boots=False)
    for node in built.nodes():
        folder = node.k3s_folder / "agent/pod-manifests"
        folder.mkdir(parents=True)
        (folder / "user.yaml").write_text(json.dumps(static_pod(built)))
        built.start(node.name)

    def first_with_pods() -> str | None:
        first = initialiser(built)
        return first if first is not None and shims(built.node(first)) else None

    bench.wait_until("a container on the initialiser", lambda: bool(first_with_pods()), limit_s=300)
    first = first_with_pods()
    assert first is not None
    node = built.node(first)
    old_shims, old_mounts = shims(node), mounts_of(node, "/run/k3s/containerd")
    assert old_mounts
    built.cut([first])
    others = [name for name in built.known.names() if name != first]
    bench.wait_until(
        "the next generation",
        lambda: generations(built, others) == {2},
        limit_s=GIVING_UP_S + WHOLE_S,
    )
    built.heal()
    bench.wait_until("all to be whole", lambda: is_whole(built), limit_s=WHOLE_S)
    assert (node.k3s_folder / "agent/pod-manifests/user.yaml").exists(), "the user's own comes back"
    assert not set(old_shims) & set(shims(node))
    assert not set(old_mounts) & set(mounts_of(node, "/run/k3s/containerd"))
    assert list((node.k3s_folder / "set-aside").glob("*/server/db/etcd/member/wal"))


def test_the_initialiser_of_a_formed_real_cluster_joins_it_again_without_its_database(
    bench: Bench,
) -> None:
    built = up(bench, nodes=4)
    bench.wait_until("all to be whole", lambda: is_whole(built), limit_s=WHOLE_S)
    before = bench.clusters()
    first = before[0].node
    built.kill(first)
    shutil.rmtree(built.node(first).k3s_folder / "server/db")
    built.start(first)
    bench.wait_until("all to be whole again", lambda: is_whole(built), limit_s=WHOLE_S)
    assert [one.uid for one in bench.clusters()] == [one.uid for one in before]
