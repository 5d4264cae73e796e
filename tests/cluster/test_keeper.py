from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from ledger import Instant, Moment, NodeId
from meshd.cluster import K3sCluster, guide, keeper
from meshd.cluster.complaints import STALE_MEMBER, Complaint
from meshd.cluster.hostinit import Exit, Held
from meshd.cluster.k3s import ServerReading
from meshd.cluster.observation import Seen, observed
from meshd.cluster.obstacle import Obstacle
from meshd.cluster.paths import K3sPaths
from meshd.cluster.plan import Launch
from meshd.errors import MeshdError
from meshd.events import ClusterOrder, Event, K3sObserved, Seal
from meshd.sealing import unseal
from tests.cluster.bench import (
    ADDRESSES,
    N1,
    N2,
    N3,
    N4,
    NAMES,
    SECRETS,
    SETTINGS,
    initialiser,
    k3s_paths,
    plan,
    sealing_key,
    server,
    tree,
    worker,
)

NOTHING = ClusterOrder(seat="none", plan=None, formed=False)
IDLE = Held(pid=None, exits=0, last_exit=None, blocked=None)


class FakeHostInit:
    """Holds nothing; remembers what it was told."""

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.held = IDLE
        self.refusal: OSError | None = None
        self.lines: list[str] = []
        self.leases: list[tuple[str, Instant | None]] = []
        self.stops: list[str] = []
        self.replaced: list[int] = []

    async def extend(self, cluster: str, until: Instant | None) -> None:
        self.leases.append((cluster, until))

    async def stop(self, cluster: str) -> None:
        self.stops.append(cluster)

    async def ensure(self, launch: Launch, *, replaces: int | None = None) -> None:
        if self.refusal is not None:
            raise self.refusal
        if replaces is not None:
            self.replaced.append(replaces)
        if self.launches[-1:] != [launch]:
            self.launches.append(launch)

    def look(self) -> Held:
        return self.held

    def new_lines(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


class Bench:
    """A running `K3sCluster` of one node, and what it said."""

    def __init__(self, folder: Path, node: NodeId, paths: K3sPaths | None = None) -> None:
        self.host = FakeHostInit()
        self.said: list[K3sObserved] = []
        self.cluster = K3sCluster(
            settings=replace(SETTINGS, kubevip=None),
            node_id=node,
            node_name=NAMES[node],
            node_ip=lambda: ADDRESSES[node],
            state_dir=folder / "state",
            run_dir=folder / "run",
            secrets=lambda: SECRETS,
            sealing_key=sealing_key(node),
            clock=lambda: Moment(at=Instant(trio.current_time()), wall_ms=1_800_000_000_000),
            paths=paths or k3s_paths(folder),
            hostinit=self.host,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        send, receive = trio.open_memory_channel[Event](16)

        async def listen() -> None:
            async for event in receive:
                assert isinstance(event, K3sObserved)
                self.said.append(event)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.cluster.run, send)
            nursery.start_soon(listen)
            yield
            nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(20):
            while not condition():  # noqa: ASYNC110 - what is awaited is a state, not an event.
                await trio.sleep(0.01)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "FAST_S", 0.02)
    monkeypatch.setattr(keeper, "BLOCKED_S", 0.02)


async def test_an_order_is_carried_out_and_reported(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    async with bench.running():
        bench.cluster.apply(initialiser())
        await bench.until(lambda: bench.said)
    assert [launch.argv[1] for launch in bench.host.launches] == ["server"]
    assert bench.said[0].state == "starting"
    assert bench.said[0].waiting_for == "k3s is being started"


async def test_before_any_order_nothing_is_touched_or_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    async with bench.running():
        bench.cluster.apply(NOTHING)
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert bench.said == []
    assert bench.host.launches == []
    assert tree(tmp_path) == {}


async def test_an_order_of_no_seat_stops_no_k3s(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    async with bench.running():
        bench.cluster.apply(initialiser())
        await bench.until(lambda: bench.host.launches)
        bench.cluster.apply(NOTHING)
        await bench.until(lambda: bench.said[-1:] == [K3sObserved(state="absent")])
    assert len(bench.host.launches) == 1


async def test_k3s_is_started_as_soon_as_it_is_installed(tmp_path: Path) -> None:
    binary = tmp_path / "k3s"
    paths = replace(k3s_paths(tmp_path), binary=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESHD_K3S_BIN", str(binary))
        bench = Bench(tmp_path, N1, paths)
        async with bench.running():
            bench.cluster.apply(initialiser())
            await bench.until(lambda: bench.said)
            assert bench.said[0].state == "waiting"
            assert "MESHD_K3S_BIN" in str(bench.said[0].waiting_for)
            binary.write_text("#!/bin/sh\necho 'k3s version v9+standin (stand-in, not k3s)'\n")
            binary.chmod(0o755)
            await bench.until(lambda: bench.said[-1].version)
    assert bench.said[-1].version == "v9+standin (stand-in, not k3s)"
    assert len(bench.host.launches) == 1


async def test_the_database_once_seen_becomes_a_condition_of_the_next_start(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, N1)
    async with bench.running():
        bench.cluster.apply(initialiser())
        await bench.until(lambda: bench.host.launches)
        assert bench.host.launches[0].needs == ()
        k3s_paths(tmp_path).etcd_log.mkdir(parents=True)
        await bench.until(lambda: len(bench.host.launches) == 2)
    assert bench.host.launches[1].needs == (k3s_paths(tmp_path).etcd_log,)


async def test_an_agent_that_never_found_its_server_is_started_again_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guide, "RUNS_S", 0.2)
    bench = Bench(tmp_path, N4)
    first = f"https://{ADDRESSES[N1]}:6443"
    async with bench.running():
        bench.cluster.apply(worker())
        await bench.until(lambda: bench.host.launches)
        assert bench.host.launches[0].server == first
        bench.host.held = replace(IDLE, pid=7, server=first)
        await trio.sleep(0.4)
        assert bench.host.replaced == []  # It may still come up.
        bench.cluster.apply(replace(worker(), join=(ADDRESSES[N2],)))
        await bench.until(lambda: bench.host.replaced)
        bench.host.held = replace(IDLE, pid=8, server=f"https://{ADDRESSES[N2]}:6443")
        await trio.sleep(0.4)
    assert set(bench.host.replaced) == {7}


async def test_a_server_is_never_started_again_for_another_to_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guide, "RUNS_S", 0.0)
    bench = Bench(tmp_path, N2)
    bench.host.held = replace(IDLE, pid=7, server="https://10.9.9.9:6443")
    async with bench.running():
        bench.cluster.apply(server(formed=True))
        await bench.until(lambda: bench.host.launches and bench.said)
        await trio.sleep(0.2)
    assert bench.host.replaced == []


async def test_a_disk_that_refuses_is_named_and_tried_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N1)
    bench.host.refusal = OSError(28, "No space left on device", "/var/lib/meshd/k3s")
    async with bench.running():
        bench.cluster.apply(initialiser())
        await bench.until(lambda: bench.said)
        bench.host.refusal = None
        await bench.until(lambda: bench.host.launches)
    assert bench.said[0].state == "failed"
    assert bench.said[0].waiting_for == "No space left on device at /var/lib/meshd/k3s"


@pytest.mark.parametrize("code", [0, 1])
async def test_a_k3s_that_ends_again_and_again_is_quoted_without_its_secrets(
    tmp_path: Path, code: int
) -> None:
    bench = Bench(tmp_path, N1)
    quoted = f"again and again: k3s ended with code {code}, saying: no disk for K10…"
    last = Exit(code=code, signal=None, lines=("no disk for K10ab::server:pw",))
    async with bench.running():
        bench.cluster.apply(initialiser())
        await bench.until(lambda: bench.said)
        bench.host.held = replace(IDLE, exits=3, last_exit=last)
        await bench.until(lambda: bench.said[-1].exits == 3)
    assert (bench.said[-1].state, bench.said[-1].waiting_for) == ("failed", quoted)


async def test_why_k3s_cannot_join_is_said_in_words(tmp_path: Path) -> None:
    bench = Bench(tmp_path, N2)
    fatal = 'level=fatal msg="failed to bootstrap cluster data: not authorized"'
    bench.host.held = replace(
        IDLE, exits=1, last_exit=Exit(code=1, signal=None, lines=("noise", fatal))
    )
    async with bench.running():
        bench.cluster.apply(server())
        await bench.until(lambda: bench.said)
    assert bench.said[0].state == "failed"
    assert bench.said[0].waiting_for == "the server refused this node's token"


async def test_secrets_are_sealed_by_those_who_hold_them(tmp_path: Path) -> None:
    async def sealed(node: NodeId, order: ClusterOrder, name: str) -> str:
        cluster = Bench(tmp_path, node).cluster
        cluster.apply(order)
        public = sealing_key(N3).public_key().public_bytes_raw()
        answer = await cluster.seal(Seal(recipient=N3, sealing_key=public, name=name))
        return unseal(answer.value, recipient=N3, sealing_key=sealing_key(N3), name=name)

    assert await sealed(N1, NOTHING, "server-token") == SECRETS.server_token
    assert await sealed(N1, initialiser(), "agent-token") == SECRETS.agent_token
    assert await sealed(N2, server(), "server-token") == SECRETS.server_token
    assert await sealed(N2, server(), "agent-token") == SECRETS.agent_token
    other = replace(plan(), token_commitment="00" * 32)
    for node, order, name in (
        (N4, worker(), "server-token"),
        (N2, replace(server(), sealed=()), "server-token"),
        (N3, replace(NOTHING, plan=other), "server-token"),
        (N1, initialiser(), "unknown"),
    ):
        with pytest.raises(MeshdError) as error:
            await sealed(node, order, name)
        assert error.value.code == "MESH-5003"


async def test_a_key_that_is_none_is_an_error_with_a_name(tmp_path: Path) -> None:
    request = Seal(recipient=N3, sealing_key=b"short", name="server-token")
    with pytest.raises(MeshdError) as error:
        await Bench(tmp_path, N1).cluster.seal(request)
    assert error.value.code == "MESH-5004"


# What is said of what was seen, without any of the machinery.

READY = ServerReading(
    obstacle=None,
    api_answers=True,
    voters=(NAMES[N1], NAMES[N2]),
    uid="u",
    nodes=((NAMES[N1], True), (NAMES[N2], False)),
)
SEEN = Seen(
    node_name=NAMES[N1],
    node_ip=ADDRESSES[N1],
    order=initialiser(formed=True),
    version="v1",
    obstacle=None,
    held=replace(IDLE, pid=1),
    complaint=None,
    server=READY,
    worker=None,
    has_node=True,
    vip_answers=False,
)
BEFORE = K3sObserved(state="starting", kube_system_uid="u")


def said(**changes: object) -> K3sObserved:
    return observed(replace(SEEN, **changes), BEFORE)  # type: ignore[arg-type]  # `replace` checks the names.


def test_a_server_is_ready_when_it_votes_and_its_node_is() -> None:
    now = said()
    assert (now.state, now.waiting_for, now.nodes_ready) == ("ready", None, 1)
    assert now.endpoint == "https://10.0.0.11:6443"
    assert "voter" in str(said(server=replace(READY, voters=(NAMES[N2],))).waiting_for)
    assert "Node is not" in str(said(server=replace(READY, nodes=())).waiting_for)
    # A server without an agent has no Node.
    assert said(server=replace(READY, nodes=()), has_node=False).state == "ready"


def test_before_the_cluster_is_formed_a_server_that_can_be_joined_has_an_endpoint() -> None:
    early = ServerReading(obstacle="its API server is starting", voters=(NAMES[N1],))
    assert said(server=early, order=initialiser()).endpoint == "https://10.0.0.11:6443"
    assert said(server=early).endpoint is None
    assert said(server=replace(early, voters=None), order=initialiser()).endpoint is None


def test_the_initialiser_can_be_joined_before_its_etcd_answers_and_no_other_server_can() -> None:
    greets = ServerReading(obstacle="its API server waits for etcd", greets=True)
    begins = initialiser()
    assert said(server=greets, order=begins).endpoint == "https://10.0.0.11:6443"
    assert said(server=greets, order=replace(begins, seat="server")).endpoint is None
    assert said(server=greets, order=replace(begins, formed=True)).endpoint is None


def test_a_complaint_counts_only_while_k3s_is_not_ready() -> None:
    passing = Complaint(sentence="busy", hopeless=False)
    hopeless = Complaint(sentence="refused", hopeless=True)
    starting = ServerReading(obstacle="k3s is starting")
    assert said(complaint=hopeless).state == "ready"
    now = said(server=starting, complaint=passing)
    assert (now.state, now.waiting_for) == ("starting", "busy")
    assert said(server=starting, complaint=hopeless).state == "failed"


def test_a_running_k3s_is_reported_even_if_it_could_not_be_started_again() -> None:
    obstacle = Obstacle(state="failed", sentence="foreign")
    now = said(obstacle=obstacle)
    assert (now.state, now.waiting_for, now.voters) == ("ready", "foreign", READY.voters)
    stopped = said(obstacle=obstacle, held=IDLE, server=None)
    assert (stopped.state, stopped.waiting_for, stopped.endpoint) == ("failed", "foreign", None)


def test_a_missing_database_is_no_reason_to_make_another() -> None:
    now = said(server=None, held=replace(IDLE, blocked="/x/wal"))
    assert now.state == "failed"
    assert "second cluster" in str(now.waiting_for)


def test_a_worker_is_what_its_node_is() -> None:
    assert said(server=None, worker=None).state == "ready"
    assert said(server=None, worker="its Node is not Ready yet").state == "starting"
    assert said(server=None, worker=None).voters == ()


def test_the_uid_once_read_is_kept_while_k3s_is_away() -> None:
    assert said(server=ServerReading(obstacle="k3s is starting")).kube_system_uid == "u"


def test_a_server_of_a_formed_cluster_says_that_its_database_is_lost() -> None:
    stale = Complaint(sentence=STALE_MEMBER, hopeless=True)
    lost = {"held": IDLE, "server": None, "has_database": False}
    assert said(complaint=stale, **lost).lost_database
    line = 'level=error msg="etcd cluster join failed: duplicate node name found"'
    ended = replace(IDLE, last_exit=Exit(code=0, signal=None, lines=(line,)))
    assert said(**(lost | {"held": ended})).lost_database
    assert not said(**lost).lost_database, "k3s does not say so"
    assert not said(complaint=stale, held=IDLE, server=None).lost_database, "it has one"
    assert not said(complaint=stale, order=initialiser(), **lost).lost_database
