"""A database of before a reset: left alone while it serves, else stopped and set aside, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from meshd.cluster.hostinit import Held
from meshd.cluster.mark import Mark, read_mark, write_mark
from meshd.cluster.plan import Launch
from meshd.cluster.retiring import SERVING_S, Retiring
from meshd.events import ClusterOrder, Retire
from tests.cluster.bench import N2, NAMES, k3s_paths, plan, server
from tests.cluster.laying import begin, expect_obstacle, lay
from tests.cluster.test_keeper import FakeHostInit

ORDER = replace(server(formed=True), epoch=1)
RUNS = Held(pid=7, exits=0, last_exit=None, blocked=None, cluster=plan().cluster_id)
DOWN = replace(RUNS, pid=None, stopping=True, down=True)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.paths = folder, k3s_paths(folder)
        self.host = FakeHostInit()
        self.host.held = RUNS
        lay(folder, N2, server(formed=True))
        begin(folder)
        self.answers = False
        self.retiring = Retiring(folder / "state", self.paths, self.host, self.serves)

    async def serves(self) -> bool:
        return self.answers

    def mark(self) -> Mark | None:
        found = read_mark(self.paths.server)
        assert found != "damaged"
        return found

    def aside(self) -> list[str]:
        folder = self.paths.data_dir / "set-aside" / f"{plan().cluster_id}-epoch-0"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def order(*, wholly: bool, now: bool = True) -> ClusterOrder:
    retire = Retire(cluster_id=plan().cluster_id, epoch=1, wholly=wholly, now=now)
    return replace(ORDER, retire=retire)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_without_a_reset_nothing_is_touched(bench: Bench) -> None:
    assert await bench.retiring.retire(replace(ORDER, epoch=0), 0.0) is None
    assert (bench.host.stops, bench.aside()) == ([], [])


async def test_what_serves_is_left_alone_until_it_is_silent_for_long(bench: Bench) -> None:
    bench.answers = True
    waiting = await bench.retiring.retire(order(wholly=True), 10.0)
    assert waiting is not None, "nothing else is prepared meanwhile"
    assert "is left alone" in waiting.sentence
    bench.answers = False
    assert await bench.retiring.retire(order(wholly=True), 10.0 + SERVING_S - 1) is not None
    assert bench.retiring.superseded
    assert bench.host.stops == []
    waiting = await bench.retiring.retire(order(wholly=True), 10.0 + SERVING_S)
    assert waiting is not None
    assert "is being stopped" in waiting.sentence
    assert bench.host.stops == [plan().cluster_id]
    assert not bench.retiring.superseded


async def test_a_new_daemon_does_not_know_yet_that_it_does_not_serve(bench: Bench) -> None:
    assert await bench.retiring.retire(order(wholly=True), 500.0) is not None
    assert bench.retiring.superseded


async def test_it_stays_where_it_is_until_a_server_of_now_answers(bench: Bench) -> None:
    bench.host.held = DOWN
    waiting = await bench.retiring.retire(order(wholly=True, now=False), 0.0)
    assert waiting is not None
    assert waiting.sentence.startswith("a server of epoch 1 to answer")
    assert bench.paths.etcd_log.is_dir()


async def test_who_has_no_seat_any_more_gives_up_k3s_folders(bench: Bench) -> None:
    bench.host.held = DOWN
    assert await bench.retiring.retire(order(wholly=True), 0.0) is None
    assert not bench.paths.server.exists()
    assert bench.aside() == ["agent", "given-back", "server"]
    assert await bench.retiring.retire(order(wholly=True), 1.0) is None


async def test_who_keeps_its_seat_gives_up_the_database_alone(bench: Bench) -> None:
    bench.host.held = DOWN
    assert await bench.retiring.retire(order(wholly=False), 0.0) is None
    assert bench.aside() == ["etcd"]
    mark = bench.mark()
    assert mark is not None
    assert (mark.epoch, mark.node_name) == (1, NAMES[N2])
    assert bench.paths.agent.exists()
    assert await bench.retiring.retire(order(wholly=False), 1.0) is None
    assert len(bench.host.stops) == 1
    assert isinstance(lay(bench.folder, N2, ORDER), Launch), "it joins as one that lost it"


async def test_a_crash_after_the_rename_is_gone_on_from(bench: Bench) -> None:
    bench.host.held = DOWN
    mark = bench.mark()
    assert mark is not None
    assert await bench.retiring.retire(order(wholly=False), 0.0) is None
    write_mark(bench.paths.server, mark)  # The power failed before the new mark.
    assert await bench.retiring.retire(order(wholly=False), 0.0) is None
    again = bench.mark()
    assert again is not None
    assert (again.epoch, bench.aside()) == (1, ["etcd"])


async def test_what_another_cluster_left_is_no_business_of_a_reset(bench: Bench) -> None:
    mark = bench.mark()
    assert mark is not None
    write_mark(bench.paths.server, msgspec.structs.replace(mark, cluster_id="d2" * 16))
    bench.host.held = DOWN
    assert await bench.retiring.retire(order(wholly=True), 0.0) is None
    assert bench.aside() == []


def test_an_old_database_is_not_started_whatever_happens(bench: Bench) -> None:
    expect_obstacle(lay(bench.folder, N2, ORDER), "failed", "of before the reset of epoch 1")
