from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshd.cluster import K3sPaths, prepare_secrets
from meshd.cluster.k3s import AgentApi, Lease, ServerApi, members_of, voters_of
from meshd.cluster.kubevip import VipProbe
from meshd.cluster.secrets import CandidateSecrets
from tests.cluster.fake_api import FakeApi, serving, write_credentials

MEMBERS: list[dict[str, Any]] = [
    {"name": "n1-aaaaaaaa-36777e23", "clientURLs": ["https://10.0.0.11:2379"]},
    {"name": "n2-bbbbbbbb-0badcafe", "isLearner": True},
    {"name": "n3-cccccccc-00000001"},
    {"peerURLs": ["https://10.0.0.14:2380"]},
]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> CandidateSecrets:
    return prepare_secrets(tmp_path_factory.mktemp("secrets"))


@pytest.fixture
def paths(tmp_path: Path, secrets: CandidateSecrets) -> K3sPaths:
    paths = K3sPaths(config_dir=tmp_path / "etc", data_dir=tmp_path / "data")
    write_credentials(paths.tls, secrets)
    write_credentials(paths.agent, secrets, client="client-kubelet")
    return paths


@pytest.fixture
def api(tmp_path: Path, secrets: CandidateSecrets) -> Iterator[FakeApi]:
    passwords = {"server": secrets.server_token, "node": secrets.agent_token}
    fake = FakeApi(passwords, members=MEMBERS, nodes={"n1-aaaaaaaa": True, "n4-dddddddd": False})
    with serving(fake, secrets, tmp_path / "serving"):
        yield fake


@asynccontextmanager
async def reader(paths: K3sPaths, api: FakeApi) -> AsyncIterator[ServerApi]:
    server = ServerApi(paths, api.passwords, port=api.port)
    try:
        yield server
    finally:
        await server.close()


async def test_a_server_is_followed_from_closed_port_to_ready(
    paths: K3sPaths, api: FakeApi
) -> None:
    voters = ("n1-aaaaaaaa", "n3-cccccccc")
    expected = {
        "starting": ("k3s is starting", None, False),
        "supervisor": ("its API server waits for etcd", None, False),
        "etcd": ("its API server waits for etcd", voters, False),
        "checks": ("its API server is starting", voters, False),
        "api": ("k3s' controllers are starting", voters, True),
        "ready": (None, voters, True),
    }
    async with reader(paths, api) as server:
        for stage, seen in expected.items():
            api.stage = stage
            reading = await server.read(thorough=False)
            assert (reading.obstacle, reading.voters, reading.api_answers) == seen, stage
            assert reading.greets or reading.api_answers or stage == "starting"
        reading = await server.read(thorough=False)
    assert reading.uid == "uid-1"
    assert reading.nodes == (("n1-aaaaaaaa", True), ("n4-dddddddd", False))
    assert reading.lease is None


async def test_a_quick_look_reads_readiness_and_lease_over_one_kept_connection(
    paths: K3sPaths, api: FakeApi
) -> None:
    api.lease = Lease(holder="n3-cccccccc", renewed="1")
    async with reader(paths, api) as server:
        first = await server.read(thorough=True)
        connections = api.connections
        api.asked.clear()
        for _ in range(5):
            assert await server.read(thorough=False) == first
        assert api.connections == connections
    assert set(api.asked) == {
        "/readyz", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/plndr-cp-lock",
    }  # fmt: skip
    assert first.lease == api.lease


async def test_when_something_is_wrong_the_next_quick_look_is_at_everything(
    paths: K3sPaths, api: FakeApi
) -> None:
    async with reader(paths, api) as server:
        await server.read(thorough=True)
        api.stage = "supervisor"
        assert (await server.read(thorough=False)).voters is None
        api.stage, api.members = "ready", MEMBERS[2:3]
        assert (await server.read(thorough=False)).voters == ("n3-cccccccc",)


async def test_without_certificates_k3s_is_still_making_them(tmp_path: Path, api: FakeApi) -> None:
    empty = K3sPaths(data_dir=tmp_path / "empty")
    async with reader(empty, api) as server:
        reading = await server.read(thorough=True)
    assert reading.obstacle == "k3s is making its certificates"
    assert api.connections == 0


async def test_certificates_that_k3s_renewed_are_used(
    paths: K3sPaths, api: FakeApi, secrets: CandidateSecrets
) -> None:
    async with reader(paths, api) as server:
        await server.read(thorough=True)
        before = api.connections
        write_credentials(paths.tls, secrets)
        assert (await server.read(thorough=True)).obstacle is None
        assert api.connections > before


async def test_another_clusters_server_on_the_port_is_named(
    tmp_path: Path, paths: K3sPaths, secrets: CandidateSecrets
) -> None:
    other = prepare_secrets(tmp_path / "other")
    with serving(FakeApi({}), other, tmp_path / "other") as api:
        async with reader(paths, api) as server:
            reading = await server.read(thorough=True)
    assert reading.obstacle is not None
    assert reading.obstacle.startswith("another program than this k3s answers")
    assert reading.voters is None


async def test_nobody_listening_is_said_so(paths: K3sPaths) -> None:
    server = ServerApi(paths, {"server": "x", "node": "y"}, port=1)
    reading = await server.read(thorough=True)
    await server.close()
    assert reading.obstacle == "k3s does not listen yet"


async def test_a_wrong_password_reads_no_members(paths: K3sPaths, api: FakeApi) -> None:
    server = ServerApi(paths, {"server": "wrong", "node": "wrong"}, port=api.port)
    reading = await server.read(thorough=True)
    await server.close()
    assert reading.voters is None
    assert reading.obstacle is not None
    assert "401" in reading.obstacle


async def test_a_worker_is_ready_when_its_own_node_is(paths: K3sPaths, api: FakeApi) -> None:
    agent = AgentApi(paths, "n4-dddddddd", port=api.port)
    assert await agent.obstacle() == "its Node is not Ready yet"
    api.nodes["n4-dddddddd"] = True
    assert await agent.obstacle() is None
    del api.nodes["n4-dddddddd"]
    assert await agent.obstacle() == "its Node does not exist yet"
    api.stage = "supervisor"
    assert await agent.obstacle() == "its API server waits for etcd"
    await agent.close()


async def test_a_worker_without_certificate_waits_for_a_server(tmp_path: Path) -> None:
    agent = AgentApi(K3sPaths(data_dir=tmp_path), "n4-dddddddd")
    assert await agent.obstacle() == "k3s has no certificate from a server yet"


async def test_the_vip_answers_only_as_a_server_of_this_cluster(
    tmp_path: Path, paths: K3sPaths, api: FakeApi
) -> None:
    other = prepare_secrets(tmp_path / "other")
    write_credentials(tmp_path / "foreign", other)
    ours = VipProbe("127.0.0.1", paths.tls / "server-ca.crt", port=api.port)
    theirs = VipProbe("127.0.0.1", tmp_path / "foreign/server-ca.crt", port=api.port)
    early = VipProbe("127.0.0.1", tmp_path / "none/server-ca.crt", port=api.port)
    assert [await probe.answers() for probe in (ours, theirs, early)] == [True, False, False]
    api.stage = "starting"
    assert not await ours.answers()
    for probe in (ours, theirs, early):
        await probe.close()


def test_voters_are_members_with_a_name_that_are_no_learners() -> None:
    assert voters_of({"members": MEMBERS}) == ("n1-aaaaaaaa", "n3-cccccccc")
    assert voters_of({"members": []}) == ()


def test_a_member_that_is_still_joining_is_known_by_its_address() -> None:
    members = [
        {"name": "n1-aaaaaaaa-36777e23", "peerURLs": ["https://10.0.0.11:2380"]},
        {"peerURLs": ["https://[fd00::12]:2380"], "isLearner": True},
    ]
    assert members_of({"members": members}) == (("", "fd00::12"), ("n1-aaaaaaaa", "10.0.0.11"))


async def test_only_a_node_that_is_not_ready_is_removed(paths: K3sPaths, api: FakeApi) -> None:
    async with reader(paths, api) as server:
        assert not await server.remove_node("n1-aaaaaaaa"), "it is Ready: it lives"
        assert not await server.remove_node("nobody")
        assert await server.remove_node("n4-dddddddd")
    assert api.deleted == ["n4-dddddddd"]
