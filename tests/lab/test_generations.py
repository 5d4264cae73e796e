"""An initialiser that is lost for good before the cluster has formed: the others begin anew."""

from __future__ import annotations

import pytest

from simulations.lab import glance
from simulations.lab.laboratory import Laboratory
from tests.lab.conftest import Bench

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]

# 90 s without an answer, counted from the last one, and two elections (docs/genesis.md).
GIVING_UP_S = 240.0


def initialiser(built: Laboratory) -> str | None:
    """Return who begins, once k3s with a database of its own runs there."""
    for one in glance.look(built):
        if one.status is None or one.status["genesis"]["phase"] != "started":
            continue
        first = one.status["genesis"]["initialiser"]
        disk = built.node(str(first)).disk / "var-lib-rancher/k3s/server/db/etcd/member/wal"
        if disk.is_dir():
            return str(first)
    return None


def generations(built: Laboratory, names: list[str]) -> set[int]:
    """Return the generations that the named nodes know as formed."""
    said = [one.status["genesis"] for one in glance.look(built) if one.name in names and one.status]
    return {one["generation"] for one in said if one["phase"] == "formed"} if said else set()


def test_an_initialiser_lost_right_after_its_start_is_done_without_and_joins_later(
    bench: Bench,
) -> None:
    built = bench.up(nodes=5)
    found: list[str] = []

    def began() -> bool:
        first = initialiser(built)
        found[:] = [first] if first else []
        return bool(found)

    bench.wait_until("the initialiser's database", began)
    first = found[0]
    built.kill(first)
    others = [name for name in built.known.names() if name != first]
    bench.wait_until(
        "the next generation", lambda: generations(built, others) == {2}, limit_s=GIVING_UP_S
    )
    built.start(first)
    bench.wait_until_complete(built)
    # The first may have ended before its API came up; no generation ever has two clusters.
    assert sorted(one.generation or 0 for one in bench.clusters()) in ([2], [1, 2])
    aside = built.node(first).disk / "var-lib-rancher/k3s/set-aside"
    assert [path.name for path in aside.iterdir()], "the old data lies aside"
    secrets = sorted(path.name for path in (built.node(first).state / "cluster").iterdir())
    assert "candidate" in secrets
    spent = [name for name in secrets if name.startswith("spent-")]
    assert len(spent) == 1, "what generation 1 was to be made of is never used again"
