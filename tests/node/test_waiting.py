"""Every moment on the way has words for it, and they name what is missing."""

from __future__ import annotations

import pytest

from meshd.events import ClusterOrder, K3sObserved
from meshd.node._orders import NOTHING
from meshd.node._waiting import phase_of, waiting_for
from roles import GenesisPhase, GenesisState, RoleWish
from tests.node import people

PLAN = people.plan(0, 1, 2)
ORDER = ClusterOrder(seat="server", plan=PLAN, formed=False, join=("10.0.0.10",))


def genesis(phase: GenesisPhase, words: str | None = None) -> GenesisState:
    decided = phase in ("claimed", "started", "formed")
    return GenesisState(
        phase=phase,
        generation=1,
        plan=PLAN if decided else None,
        may_initialise=False,
        waiting_for=words,
        votes=3 if decided else 0,
        kube_system_uid=None,
        slots=(),
        voters=(),
        excluded=(),
        problems=(),
    )


def words(
    me: int,
    state: GenesisState,
    *,
    order: ClusterOrder = NOTHING,
    observed: K3sObserved | None = None,
    sealed: tuple[str, ...] = (),
    wish: RoleWish = "auto",
) -> str | None:
    return waiting_for(
        people.directory(me),
        wish=wish,
        genesis=state,
        order=order,
        observed=observed,
        sealed=sealed,
    )


def test_before_a_plan_genesis_says_it() -> None:
    assert words(0, genesis("discovering", "2 of 3 voters seen")) == "2 of 3 voters seen"
    assert words(0, genesis("halted-lost-memory", "an old disk")) == "an old disk"
    assert words(0, genesis("discovering")) == "other machines with this token"


@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        ((), "n0 to hand over the agent-token and the server-token"),
        (("agent-token",), "n0 to hand over the server-token"),
        (("agent-token", "server-token"), "k3s on n0 to answer: it starts the cluster"),
    ],
)
def test_a_server_names_the_initialiser_and_what_it_lacks(
    sealed: tuple[str, ...], said: str
) -> None:
    assert (words(1, genesis("started"), sealed=sealed) or "").startswith(said)


def test_a_worker_names_the_control_plane() -> None:
    assert words(3, genesis("started")) == "the control plane (n0, n1, n2) to be complete"
    assert words(3, genesis("formed")) == "a server (n0, n1, n2) to hand over the agent-token"
    assert words(3, genesis("formed"), sealed=("agent-token",)) == "a server (n0, n1, n2) to answer"


def test_under_orders_k3s_itself_is_quoted() -> None:
    starting = K3sObserved(state="starting", waiting_for="etcd to elect a leader")
    assert words(1, genesis("started"), order=ORDER, observed=starting) == "etcd to elect a leader"
    assert words(1, genesis("started"), order=ORDER) == "k3s on this node to become ready"


def test_a_ready_server_counts_who_votes_until_done() -> None:
    one = K3sObserved(state="ready", voters=("n0-00000000",))
    assert words(0, genesis("started"), order=ORDER, observed=one) == (
        "1 of 3 control-plane members vote in etcd; missing: n1, n2"
    )
    assert words(0, genesis("formed"), order=ORDER, observed=one) is None


def test_a_node_without_a_role_waits_for_nothing_once_there_is_a_plan() -> None:
    assert words(4, genesis("claimed"), wish="none") is None


@pytest.mark.parametrize(
    ("phase", "seat", "waiting", "shown"),
    [
        ("discovering", "none", "x", "discovering"),
        ("voting", "none", "x", "voting"),
        ("claimed", "worker", "x", "joining"),
        ("started", "none", None, "steady"),
        ("started", "server", None, "joining"),
        ("formed", "server", None, "steady"),
        ("formed", "server", "k3s", "joining"),
        ("halted-equivocation", "none", "x", "halted"),
    ],
)
def test_the_phase_of_a_node_follows_genesis_and_its_own_wait(
    phase: GenesisPhase, seat: str, waiting: str | None, shown: str
) -> None:
    assert phase_of(genesis(phase), seat=seat, waiting=waiting, has_facts=True) == shown
    assert phase_of(genesis(phase), seat=seat, waiting=waiting, has_facts=False) == "starting"
