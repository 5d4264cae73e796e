"""`meshd explain`: causes that the daemon names, and error codes."""

import json

import pytest
import yaml

from meshd.cli.meanings import meanings
from tests.cli.conftest import Meshd
from tests.cli.fake_daemon import EXPLANATION, FakeDaemon

TEXT = """\
n1: control-plane, because
  1. seats  3 in the control plane; 5 machines may vote, 3 must agree
            /oem/90_custom.yaml:14: p2p.auto.ha.master_nodes: 2
  2. plan   generation 1: seat 2 of 3; control plane n2, n1, n3
            record genesis/1/claim: ballot 1 of n2, signed by n1, n2, n3
            entry genesis/1/claim by n2, seq 1
! 3. k3s    starting ?[31m
waiting for: k3s on this node to become ready
would change if: all machines start afresh with a new token
"""


def test_an_explanation_has_numbered_causes_with_what_establishes_them(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    ran = meshd("explain", "role")
    assert (ran.code, ran.out, ran.err) == (0, TEXT, "")
    assert daemon.requests == ["/v1/explain/role"]


def test_json_and_yaml_are_the_object_of_the_api(meshd: Meshd, daemon: FakeDaemon) -> None:
    assert json.loads(meshd("explain", "vip", "-o", "json").out) == EXPLANATION
    assert yaml.safe_load(meshd("explain", "vip", "-o", "yaml").out) == EXPLANATION


def test_a_node_is_named_to_the_daemon_and_an_unknown_one_is_a_usage_error(
    meshd: Meshd, daemon: FakeDaemon
) -> None:
    assert meshd("explain", "join", "n2").code == 0
    assert daemon.requests[-1] == "/v1/explain/join?node=n2"
    ran = meshd("explain", "join", "x9")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error[MESH-7014]: 'x9' names no node\n  fix: known are: n1, n2\n"


@pytest.mark.parametrize("arguments", [("path",), ("MESH-3102", "n2"), ("codes", "-o", "json")])
def test_what_cannot_be_explained_is_a_usage_error_that_says_what_can(
    meshd: Meshd, arguments: tuple[str, ...]
) -> None:
    ran = meshd("explain", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error[MESH-7018]: {arguments[0]!r} cannot be explained")
    assert "role, genesis, join, vip" in ran.err


def test_without_a_daemon_a_topic_is_exit_3(meshd: Meshd) -> None:
    ran = meshd("explain", "genesis")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("error[MESH-7011]")


@pytest.mark.parametrize("spelled", ["MESH-3102", "mesh-3102", "3102"])
def test_a_code_is_explained_without_a_daemon(meshd: Meshd, spelled: str) -> None:
    ran = meshd("explain", spelled)
    assert (ran.code, ran.err) == (0, "")
    head, cause, fix = ran.out.splitlines()
    assert head == "MESH-3102: Machines of another network are near"
    assert cause.startswith("  typical cause: Their beacons are heard")
    assert fix.startswith("  fix: If they belong to this cluster")


def test_all_codes_are_listed(meshd: Meshd) -> None:
    lines = meshd("explain", "codes").out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(meanings())


def test_an_unknown_code_is_a_usage_error(meshd: Meshd) -> None:
    ran = meshd("explain", "MESH-0000")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error[MESH-7018]: no error has the code MESH-0000")


def test_bootstrap_status_is_what_explains_genesis(meshd: Meshd, daemon: FakeDaemon) -> None:
    ran = meshd("bootstrap", "status")
    assert (ran.code, ran.out, ran.err) == (0, TEXT, "")
    assert daemon.requests == ["/v1/explain/genesis"]
    assert json.loads(meshd("bootstrap", "status", "-o", "json").out) == EXPLANATION
