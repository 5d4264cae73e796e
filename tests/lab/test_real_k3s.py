"""The same path with the real k3s that MESHD_K3S_BIN names, and kube-vip's real pods."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meshd.errors import MeshdError
from simulations.lab import pods, tour
from simulations.lab.laboratory import Laboratory
from simulations.lab.places import NodePlaces
from simulations.lab.servers import Unanswered, server_on
from tests.lab.conftest import Bench

K3S = os.environ.get("MESHD_K3S_BIN")
IMAGES = os.environ.get("MESHD_K3S_IMAGES")

pytestmark = [
    pytest.mark.lab,
    pytest.mark.k3s,
    pytest.mark.skipif(K3S is None, reason="MESHD_K3S_BIN names no k3s"),
]


@pytest.fixture(scope="module")
def built(shared_bench: Bench) -> Iterator[Laboratory]:
    """Three servers and a worker with a VIP, complete; tests leave them so."""
    assert K3S is not None
    images = Path(IMAGES) if IMAGES else None
    try:
        pods.find_runtime(Path(K3S), images)
    except MeshdError as error:
        pytest.skip(error.render())
    options = ["--nodes", "4", "--k3s", K3S, *(("--images", IMAGES) if IMAGES else ())]
    before = _machine_settings()
    run = shared_bench.demo("up", *options, "--wait")
    assert run.code == 0, run.err
    assert "stand-in" not in run.err
    yield Laboratory.load(shared_bench.places)
    assert _machine_settings() == before, "a kubelet changed settings of the whole machine"


def _machine_settings() -> dict[str, str]:
    files = [Path("/proc/sys") / name for name in pods.SYSCTLS]
    return {str(file): file.read_text() for file in files if file.exists()}


def _items(built: Laboratory, path: str) -> list[dict[str, Any]]:
    """Return the objects at a path, from whichever server answers; none if none does."""
    for node in built.nodes():
        try:
            with closing(server_on(node)) as server:
                items: list[dict[str, Any]] = server.get(path)["items"]
        except Unanswered:
            continue
        return items
    return []


def _conditions(built: Laboratory) -> dict[str, dict[str, str]]:
    """Return {node of the laboratory: {condition: status}}."""
    return {
        item["metadata"]["name"].rpartition("-")[0]: {
            one["type"]: one["status"] for one in item["status"]["conditions"]
        }
        for item in _items(built, "/api/v1/nodes")
    }


def _is_whole(built: Laboratory) -> bool:
    """Whether every Node is Ready, every server answers, and the VIP does."""
    try:
        for node in _servers(built):
            _uid(node)
    except Unanswered:
        return False
    ready = [found.get("Ready") == "True" for found in _conditions(built).values()]
    return len(ready) == 4 and all(ready) and tour.holder_that_answers(built) is not None


def _wait_until_whole(built: Laboratory, bench: Bench) -> None:
    bench.wait_until("all to be well again", lambda: _is_whole(built), limit_s=240)


def _moved(built: Laboratory, bench: Bench, holder: str) -> str:
    """Wait until one other node has the address and answers there, and the old one has it not."""
    bench.wait_until(
        "the VIP elsewhere",
        lambda: tour.holder_that_answers(built, besides=holder) is not None,
    )
    return _holder(built)


def _servers(built: Laboratory) -> list[NodePlaces]:
    return [node for node in built.nodes() if (node.k3s_folder / "server" / "db").is_dir()]


def _uid(node: NodePlaces) -> str:
    with closing(server_on(node)) as server:
        return server.cluster_uid()


def _holder(built: Laboratory) -> str:
    found = tour.holder_that_answers(built)
    assert found is not None
    return found


def test_three_real_servers_and_a_worker_are_ready_and_three_vote(
    built: Laboratory, shared_bench: Bench
) -> None:
    found = _conditions(built)
    assert sorted(found) == ["n1", "n2", "n3", "n4"]
    assert {one["Ready"] for one in found.values()} == {"True"}
    servers = [node.name for node in _servers(built)]
    assert len(servers) == 3
    assert all(len(server_on(node).voters()) == 3 for node in _servers(built))
    # k3s says so of itself in the Node some seconds after it is true.
    shared_bench.wait_until(
        "EtcdIsVoter on the servers",
        lambda: (
            [
                name
                for name, conditions in sorted(_conditions(built).items())
                if conditions.get("EtcdIsVoter") == "True"
            ]
            == servers
        ),
    )


def test_kube_vips_pods_run_on_servers_from_meshds_manifest_only(built: Laboratory) -> None:
    found = _items(built, "/api/v1/namespaces/kube-system/pods")
    assert {pod["metadata"]["labels"]["app.kubernetes.io/managed-by"] for pod in found} == {"meshd"}
    assert {pod["status"]["phase"] for pod in found} == {"Running"}
    where = sorted(pod["spec"]["nodeName"].rpartition("-")[0] for pod in found)
    assert where == [node.name for node in _servers(built)]
    manifests = [node.k3s_folder / "server/manifests" for node in _servers(built)]
    assert len({(folder / "meshd-kube-vip.yaml").read_bytes() for folder in manifests}) == 1


def test_status_counts_the_nodes_and_names_the_holder(
    built: Laboratory, shared_bench: Bench
) -> None:
    holder = _holder(built)
    shown = shared_bench.demo("exec", "n1", "--", "meshd", "status", "-o", "json")
    assert shown.code == 0, shown.out
    said = json.loads(shown.out)
    assert said["vip"] == {"address": "10.0.0.50", "holder": holder}
    assert (said["cluster"]["control_plane_ready"], said["cluster"]["nodes_ready"]) == (3, 4)
    for condition in ("ready", "vip", "nodes=4", "formed"):
        done = shared_bench.demo("exec", "n1", "--", "meshd", "wait", "--for", condition)
        assert done.code == 0, (condition, done.err)
    assert len(shared_bench.demo("audit").out.splitlines()) == 1


def test_kubectl_works_under_both_names(built: Laboratory, shared_bench: Bench) -> None:
    one, other, _ = (node.name for node in _servers(built))
    make = ("k3s", "kubectl", "create", "configmap", "made-here")
    made = shared_bench.demo("exec", one, "--", *make)
    assert made.code == 0, made.err
    read = shared_bench.demo("exec", other, "--", "kubectl", "get", "cm", "made-here", "-o", "name")
    assert read.out == "configmap/made-here\n"


def test_a_pod_reaches_a_pod_on_another_node(built: Laboratory, shared_bench: Bench) -> None:
    addresses = {}
    runtime = built.known.runtime
    assert runtime is not None
    for number, item in enumerate(_items(built, "/api/v1/nodes")[:2]):
        content = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"waits-{number}"},
            "spec": {
                "nodeName": item["metadata"]["name"],
                "containers": [{"name": "c", "image": runtime.pause}],
                "tolerations": [{"operator": "Exists"}],
            },
        }
        with closing(server_on(_servers(built)[0])) as server:
            server.post("/api/v1/namespaces/default/pods", content)

    def running() -> bool:
        for pod in _items(built, "/api/v1/namespaces/default/pods"):
            if pod["status"]["phase"] == "Running":
                addresses[pod["spec"]["nodeName"].rpartition("-")[0]] = pod["status"]["podIP"]
        return len(addresses) == 2

    shared_bench.wait_until("two pods to run", running)
    (here, _), (_, there) = sorted(addresses.items())
    # From the pod's own node; what comes back proves the way in both directions.
    probe = f"import socket; socket.create_connection(('{there}', 9), 5)"
    asked = shared_bench.demo("exec", here, "--", "python3", "-c", probe)
    assert "ConnectionRefusedError" in asked.err  # By the pod: nobody listens there.


def test_the_address_moves_when_its_holders_link_is_cut(
    built: Laboratory, shared_bench: Bench
) -> None:
    holder = _holder(built)
    built.cut([holder])
    assert _moved(built, shared_bench, holder) != holder
    built.heal()
    _wait_until_whole(built, shared_bench)


def test_a_server_whose_k3s_is_told_to_stop_lets_go_of_the_address(
    built: Laboratory, shared_bench: Bench
) -> None:
    holder = built.node(_holder(built))
    running = json.loads((holder.state / "k3s" / "running.json").read_text(encoding="utf-8"))
    os.kill(int(running["pid"]), 15)
    assert _moved(built, shared_bench, holder.name) != holder.name
    _wait_until_whole(built, shared_bench)


def test_a_killed_holder_loses_the_address_and_boots_again_as_a_ready_member(
    built: Laboratory, shared_bench: Bench
) -> None:
    holder = _holder(built)
    built.kill(holder)
    assert _moved(built, shared_bench, holder) != holder
    built.start(holder)
    _wait_until_whole(built, shared_bench)
    assert all(len(server_on(node).voters()) == 3 for node in _servers(built))


def test_power_loss_of_all_ends_in_the_same_cluster(built: Laboratory, shared_bench: Bench) -> None:
    first = _servers(built)[0]
    before = _uid(first)
    for name in built.known.names():
        built.kill(name)
    for name in built.known.names():
        built.start(name)
    _wait_until_whole(built, shared_bench)
    assert _uid(first) == before
    assert len(shared_bench.demo("audit").out.splitlines()) == 1


def test_real_servers_without_agents_need_no_containers(bench: Bench) -> None:
    assert K3S is not None
    shape = ("--nodes", "1", "--control-plane", "1", "--k3s", K3S, "--no-agents")
    run = bench.demo("up", *shape, "--wait")
    assert run.code == 0, run.err
    assert "servers without agents" in run.err
    alone = Laboratory.load(bench.places)
    assert _items(alone, "/api/v1/nodes") == []
