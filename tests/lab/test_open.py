"""An open network with real daemons: halves that form by themselves, and meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from simulations.lab import glance
from simulations.lab.laboratory import Laboratory
from tests.config.edgevpn_tokens import edgevpn_token
from tests.lab.conftest import Bench

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]


def statuses(built: Laboratory) -> dict[str, dict[str, Any]]:
    """Return the status of each node that answers."""
    return {one.name: one.status for one in glance.look(built) if one.status is not None}


def are_formed(built: Laboratory, names: Sequence[str]) -> bool:
    found = statuses(built)
    return all(
        name in found
        and found[name]["genesis"]["phase"] == "formed"
        and found[name]["cluster"]["nodes_ready"] == 2
        and found[name]["vip"]["holder"] is not None
        for name in names
    )


def alarm(status: dict[str, Any], code: str) -> str | None:
    """Return what a node says under that code."""
    return next((item["message"] for item in status["health"] if item["code"] == code), None)


def test_halves_that_formed_apart_keep_what_they_have_and_name_both(bench: Bench) -> None:
    built = bench.up(nodes=4, control_plane=1, boots=False)
    for node in built.nodes():
        content = yaml.safe_load(node.cloud_config.read_text())
        content["p2p"]["network_token"] = edgevpn_token()
        node.cloud_config.write_text(f"#cloud-config\n{yaml.safe_dump(content)}")
    names = built.known.names()
    built.cut(["n3", "n4"])
    for name in names:
        built.start(name)
    bench.wait_until("both halves to form", lambda: are_formed(built, names), limit_s=180)
    before = statuses(built)
    halves = {before[name]["genesis"]["cluster_id"] for name in names}
    holders = {before[name]["vip"]["holder"] for name in names}
    assert len(halves) == len(holders) == 2
    built.heal()
    bench.wait_until("all to name both", lambda: all(
        alarm(status, "MESH-4007") and alarm(status, "MESH-4030")
        for status in statuses(built).values()
    ))  # fmt: skip
    after = statuses(built)
    for name in names:
        said, of_address = alarm(after[name], "MESH-4007"), alarm(after[name], "MESH-4030")
        assert said is not None
        assert of_address is not None
        assert all(cluster[:8] in said and cluster[:8] in of_address for cluster in halves)
        assert all(holder in of_address for holder in holders)
        for part, key in (("genesis", "cluster_id"), ("genesis", "phase"), ("node", "role")):
            assert after[name][part][key] == before[name][part][key]
        assert after[name]["cluster"]["nodes_ready"] == 2
    assert len(bench.clusters()) == 2
