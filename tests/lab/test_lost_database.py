"""A formed cluster whose first server loses its database: it joins again, and begins nothing."""

from __future__ import annotations

import shutil

import pytest

from simulations.lab import glance
from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab


def test_the_initialiser_of_a_formed_cluster_joins_it_again_without_its_database(
    bench: Bench,
) -> None:
    built = bench.up(nodes=3)
    bench.wait_until_complete(built)
    before = bench.clusters()
    first = next(one.node for one in before)
    built.kill(first)
    shutil.rmtree(built.node(first).disk / "var-lib-rancher/k3s/server/db")
    built.start(first)
    bench.wait_until_complete(built)
    assert [one.uid for one in bench.clusters()] == [one.uid for one in before]
    ready = {
        one.status["cluster"]["control_plane_ready"] for one in glance.look(built) if one.status
    }
    assert ready == {3}
