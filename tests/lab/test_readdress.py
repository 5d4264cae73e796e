"""All machines of a site get other addresses: etcd has no majority, though every machine lives."""

from __future__ import annotations

import json

import pytest
import yaml

from simulations.lab import glance, network
from tests.lab.conftest import Bench
from tests.lab.test_reset import nodes_ready, reset, status_of, three_servers_and_a_worker

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]


def test_a_cluster_goes_on_at_the_new_addresses_of_all_its_machines(bench: Bench) -> None:
    built, (survivor, *others), worker, cluster_id = three_servers_and_a_worker(bench)
    before = bench.clusters()
    assert "MESH-4021" in reset(bench, survivor, "--readdress").err, "nothing has changed"

    now = {node.name: f"10.0.0.{node.number + 200}" for node in built.nodes()}
    for node in built.nodes():
        network.readdress(node, now[node.name])

    def all_have_told() -> bool:
        nodes = status_of(built, survivor).get("nodes", [])
        return {n["name"]: n["node_ip"] for n in nodes if n["state"] == "alive"} == now

    bench.wait_until("all are heard at their new addresses", all_have_told)
    bench.wait_until(
        "etcd has lost its majority",
        lambda: reset(bench, survivor, "--readdress", "--dry-run").code == 0,
    )
    plain = reset(bench, survivor, "--dry-run")
    assert (plain.code, "MESH-4021" in plain.err, "--readdress" in plain.err) == (1, True, True)
    shown = reset(bench, survivor, "--readdress", "--dry-run").out
    for name in (survivor, *others):
        assert f"{name}: {built.node(name).address} before, {now[name]} from now on" in shown

    done = reset(bench, survivor, "--readdress", "--cluster-id", cluster_id)
    assert (done.code, done.err) == (0, "")
    bench.wait_until("all are Ready", lambda: nodes_ready(built, survivor) == 4, limit_s=120)

    def well() -> bool:
        found = [one.status or {} for one in glance.look(built)]
        return all(s.get("cluster", {}).get("nodes_ready") == 4 and not s["health"] for s in found)

    bench.wait_until("nobody complains", well, limit_s=120)
    roles = {name: status_of(built, name)["node"]["role"] for name in built.known.names()}
    assert [name for name, role in roles.items() if role == "worker"] == [worker]
    assert [one.uid for one in bench.clusters()] == [one.uid for one in before]
    old = {node.address for node in built.nodes()}
    for name, address in now.items():
        mark = built.node(name).k3s_folder / "agent" / "meshd-cluster.json"
        assert json.loads(mark.read_text())["node_ip"] == address
        says = drop_in(bench, name)
        assert says["node-ip"] == address
        assert str(says["server"]).removeprefix("https://").removesuffix(":6443") not in old


def drop_in(bench: Bench, name: str) -> dict[str, object]:
    """Return what meshd tells k3s on a node."""
    file = "/etc/rancher/k3s/config.yaml.d/50-meshd.yaml"
    content = yaml.safe_load(bench.demo("exec", name, "--", "cat", file).out)
    assert isinstance(content, dict)
    return content
