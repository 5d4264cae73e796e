"""Machines with a token that does not let them in: refused, named on both sides, let in later."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import yaml

from meshd.config import decode_token, encode_token, join_token, new_token
from simulations.lab import glance
from simulations.lab.laboratory import Laboratory
from simulations.lab.places import NodePlaces
from tests.lab.conftest import Bench

pytestmark = pytest.mark.lab


def give(node: NodePlaces, token: str, *seeds: str) -> None:
    """Put a token and seeds into a node's file."""
    content = yaml.safe_load(node.cloud_config.read_text())
    content["p2p"] |= {"network_token": token, "meshd": {"seeds": list(seeds)}}
    node.cloud_config.write_text(f"#cloud-config\n{yaml.safe_dump(content)}")


def health(built: Laboratory, name: str, code: str) -> dict[str, Any] | None:
    """Return a node's health item of that code, if it has one."""
    status = next(one for one in glance.look(built) if one.name == name).status
    items = status["health"] if status is not None else []
    return next((item for item in items if item["code"] == code), None)


def test_an_expired_and_a_wrong_token_are_refused_and_named_and_a_good_one_joins(
    bench: Bench,
) -> None:
    bench.may_exit = {"n3"}
    built = bench.up(nodes=3, control_plane=1, boots=False)
    n1, n3 = built.node("n1"), built.node("n3")
    ours = decode_token(yaml.safe_load(n1.cloud_config.read_text())["p2p"]["network_token"])
    old = replace(ours, network=replace(ours.network, expires=date(2026, 1, 31)))
    give(n3, encode_token(old))
    for name in built.known.names():
        built.start(name)

    # Expired, on a machine that was never in: it does not start, and says until when and what now.
    bench.wait_until("n3 to end", n3.exits.exists)
    said = "\n".join(glance.tail(n3, 10))
    assert n3.exits.read_text().split()[0] == "6"
    assert "error[MESH-1070]" in said
    assert "expired on 2026-01-31" in said
    assert "meshd token join" in said
    assert not (n3.state / "identity.key").exists()

    # Of another network, told to ask n1: both sides name the other, and n1 and n2 form without it.
    stranger = new_token(control_plane=1, nodes_max=1, seeds=(), random_bytes=os.urandom)
    give(n3, encode_token(stranger), f"/ip4/{n1.address}/tcp/7946")
    bench.wait_until("both to say so", lambda: all(
        health(built, name, "MESH-3101") for name in ("n1", "n3")
    ))  # fmt: skip
    for name, other in (("n1", n3), ("n3", n1)):
        item = health(built, name, "MESH-3101")
        assert item is not None
        assert f"a machine at {other.address} has another token" in item["message"]
        assert "p2p.network_token" in item["fix"]
    bench.wait_until("n1 and n2 to form", lambda: sorted(
        one.name for one in glance.look(built)
        if one.status is not None and one.status["cluster"]["nodes_ready"] == 2
    ) == ["n1", "n2"])  # fmt: skip
    assert health(built, "n1", "MESH-3102") is None

    # Put right, with a token that has not expired: it joins, and nobody talks of it any more.
    built.kill("n3")
    built.wipe("n3")
    give(n3, encode_token(join_token(ours, date(2140, 1, 1))))
    built.start("n3")
    bench.wait_until_complete(built)
    bench.wait_until("no complaint to be left", lambda: not any(
        health(built, name, "MESH-3101") for name in built.known.names()
    ))  # fmt: skip
    assert health(built, "n3", "MESH-1071") is None
