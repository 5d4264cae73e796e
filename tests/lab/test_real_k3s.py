"""The same path with the real k3s that MESHD_K3S_BIN names."""

from __future__ import annotations

import os

import pytest

from simulations.lab.laboratory import Laboratory
from simulations.lab.servers import server_on
from tests.lab.conftest import Bench

K3S = os.environ.get("MESHD_K3S_BIN")

pytestmark = [
    pytest.mark.lab,
    pytest.mark.k3s,
    pytest.mark.skipif(K3S is None, reason="MESHD_K3S_BIN names no k3s"),
]


def test_three_real_servers_form_one_cluster_that_kubectl_works_with(bench: Bench) -> None:
    assert K3S is not None
    shape = ("--nodes", "3", "--control-plane", "3", "--k3s", K3S)
    run = bench.demo("up", *shape, "--wait")
    assert run.code == 0, run.err
    assert "stand-in" not in run.err
    built = Laboratory.load(bench.places)
    assert all(len(server_on(node).voters()) == 3 for node in built.nodes())
    assert len(bench.demo("audit").out.splitlines()) == 1
    for name in built.known.names():
        shown = bench.demo("exec", name, "--", "k3s", "kubectl", "get", "namespaces", "-o", "name")
        assert "namespace/kube-system" in shown.out
    made = bench.demo("exec", "n2", "--", "k3s", "kubectl", "create", "configmap", "made-on-n2")
    assert made.code == 0, made.err
    read = bench.demo("exec", "n3", "--", "k3s", "kubectl", "get", "configmap", "made-on-n2")
    assert read.code == 0, read.err
