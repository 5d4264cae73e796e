"""The ranking is total, does not depend on order, and says why everyone got what they got."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from ledger import NodeId
from roles import Bounds, Candidate, ClusterPlan, NotYet, RoleWish, elect, rank
from roles._election import NOBODY, SERVER_MEMORY_MIN_MIB
from roles._records import Claim, decode_value, encode_value
from tests.roles.world import candidate_of, signer_of

BOUNDS = Bounds.bounded(control_plane=3, nodes_max=9)
VIP = "10.0.0.50"
WISHES: list[RoleWish] = ["auto", "control-plane", "worker", "none"]


@st.composite
def candidate_sets(draw: st.DrawFn) -> list[Candidate]:
    """Up to nine candidates of every kind, memory and settings often equal."""
    numbers = draw(st.lists(st.integers(1, 9), unique=True, max_size=9))
    return [
        candidate_of(
            number,
            BOUNDS,
            wish=draw(st.sampled_from(WISHES)),
            may_vote=draw(st.booleans() | st.just(True)),
            direct=draw(st.booleans() | st.just(True)),
            memory_mib=draw(st.sampled_from([512, SERVER_MEMORY_MIN_MIB, 4096, 8192])),
            cpus=draw(st.integers(1, 4)),
            settings_hash=draw(st.sampled_from(["5e" * 32, "5f" * 32])),
            node_ip=draw(st.sampled_from([f"10.0.0.{number}", "10.0.2.15", VIP])),
        )
        for number in numbers
    ]


def test_a_machine_that_says_that_it_is_blocked_gets_no_seat_and_its_words_are_kept() -> None:
    why = "k3s' port on it is taken: 6443 by process 7 (nginx)"
    one, *others = four()
    plan = elected([replace(one, blocked=why), *others])
    assert isinstance(plan, ClusterPlan)
    assert plan.seat_of(one.node) is None
    waits = elected([replace(one, blocked=why), *others[:2]])
    assert isinstance(waits, NotYet)
    assert why in waits.reason


def test_the_members_interface_for_the_virtual_address_is_the_plans_if_they_agree() -> None:
    named = [replace(one, vip_interface="eth0") for one in four()]
    odd = replace(named[3], vip_interface="ens18", memory_mib=1)  # Gets no seat.
    plan = elected([*named[:3], odd])
    assert isinstance(plan, ClusterPlan)
    assert plan.vip_interface == "eth0"
    for other in ("ens18", ""):
        plan = elected([*named[:2], replace(named[2], vip_interface=other)])
        assert isinstance(plan, ClusterPlan)
        assert plan.vip_interface == ""


def elected(
    candidates: list[Candidate], failed_before: Mapping[NodeId, int] = NOBODY
) -> ClusterPlan | NotYet:
    return elect(
        candidates,
        control_plane=3,
        generation=1,
        cluster_id="ab" * 16,
        network="lan",
        vip=VIP,
        failed_before=failed_before,
    )


def four() -> list[Candidate]:
    return [candidate_of(number, BOUNDS) for number in range(1, 5)]


@given(candidate_sets(), st.integers())
def test_the_order_of_candidates_is_irrelevant(candidates: list[Candidate], seed: int) -> None:
    shuffled = list(candidates)
    Random(seed).shuffle(shuffled)
    assert elected(candidates) == elected(shuffled)


@given(candidate_sets())
def test_a_plan_has_exactly_the_control_plane_asked_for(candidates: list[Candidate]) -> None:
    plan = elected(candidates)
    ranking = rank(candidates, control_plane=3, vip=VIP)
    if isinstance(plan, NotYet):
        assert len(ranking.eligible) < 3
        return
    assert len(plan.seats) == len({seat.node for seat in plan.seats}) == 3
    assert plan.seats[0].node == plan.initialiser
    assert [seat.node for seat in plan.seats] == [c.node for c in ranking.eligible[:3]]


@given(candidate_sets())
def test_everyone_is_ranked_or_refused_and_told_why(candidates: list[Candidate]) -> None:
    ranking = rank(candidates, control_plane=3, vip=VIP)
    placed = [c.node for c in ranking.eligible] + [refusal.node for refusal in ranking.refused]
    assert sorted(placed) == sorted(c.node for c in candidates)
    for candidate in candidates:
        said = ranking.explain(candidate.node, control_plane=3)
        assert said.startswith(("worker: ", "control plane")), said


@given(candidate_sets())
def test_nobody_is_seated_who_must_not_be(candidates: list[Candidate]) -> None:
    for candidate in rank(candidates, control_plane=3, vip=VIP).eligible:
        assert candidate.wish in ("auto", "control-plane")
        assert candidate.direct
        assert candidate.may_vote
        assert candidate.wish == "control-plane" or candidate.memory_mib >= SERVER_MEMORY_MIN_MIB


@given(candidate_sets())
def test_all_seats_have_equal_settings(candidates: list[Candidate]) -> None:
    assert len({c.settings_hash for c in rank(candidates, control_plane=3, vip=VIP).eligible}) <= 1


@given(candidate_sets())
def test_every_seat_has_an_address_of_its_own(candidates: list[Candidate]) -> None:
    addresses = [c.node_ip for c in rank(candidates, control_plane=3, vip=VIP).eligible]
    assert len(set(addresses)) == len(addresses)
    assert VIP not in addresses
    plan = elected(candidates)
    if isinstance(plan, ClusterPlan):
        assert decode_value(encode_value(Claim(plan)), "claim", 1) == Claim(plan)


def test_two_servers_with_one_address_are_both_refused_and_named() -> None:
    """As virtual machines behind NAT have it: each of them is 10.0.2.15."""
    one, two, three, other = four()
    same = [replace(c, node_ip="10.0.2.15") for c in (one, two, three)]
    plan = elected([*same, other])
    assert isinstance(plan, NotYet)
    found, *reasons = plan.reason.split("; ")
    assert found == "1 of 3 servers found (n4)"
    assert sorted(reasons) == [
        "n1: its address 10.0.2.15 is also that of n2, n3",
        "n2: its address 10.0.2.15 is also that of n1, n3",
        "n3: its address 10.0.2.15 is also that of n1, n2",
    ]


def test_a_worker_may_have_any_address() -> None:
    worker = replace(four()[3], wish="worker", node_ip=four()[0].node_ip)
    assert len(rank([*four()[:3], worker], control_plane=3).eligible) == 3


def test_wish_comes_before_memory_memory_before_cores_cores_before_id() -> None:
    plain, asked, big, cores = four()
    asked = replace(asked, wish="control-plane", memory_mib=512)
    plain = replace(plain, memory_mib=4096, cpus=2)
    big = replace(big, memory_mib=8192, cpus=1)
    cores = replace(cores, memory_mib=4096, cpus=3)
    ranking = rank([plain, asked, big, cores], control_plane=3)
    assert [c.name for c in ranking.eligible] == [c.name for c in (asked, big, cores, plain)]
    twins = [replace(c, memory_mib=4096, cpus=2) for c in four()]
    ids = [c.node for c in rank(twins, control_plane=3).eligible]
    assert ids == sorted(ids)


def test_members_of_an_abandoned_plan_come_last() -> None:
    best = four()[0].node
    plan = elected(four(), failed_before={best: 1})
    assert isinstance(plan, ClusterPlan)
    assert plan.seat_of(best) is None


def test_a_member_of_an_abandoned_plan_still_fills_a_seat_that_nobody_else_can() -> None:
    best = four()[0].node
    plan = elected(four()[:3], failed_before={best: 1})
    assert isinstance(plan, ClusterPlan)
    assert plan.seats[-1].node == best


def test_a_refusal_names_its_reason() -> None:
    changes: list[tuple[dict[str, object], str]] = [
        ({"wish": "worker"}, "its role is set to worker"),
        ({"direct": False}, "through a relay only"),
        ({"memory_mib": 1842}, "1842 MiB of memory, a server needs 1843"),
        ({"may_vote": False}, "its token does not allow it to vote"),
        ({"node_ip": ""}, "no usable address"),
        ({"node_ip": VIP}, "its address is the virtual one, 10.0.0.50"),
        ({"settings_hash": "77" * 32}, "(77777777) differ from those of the 3 that agree"),
    ]
    for change, words in changes:
        odd = candidate_of(9, BOUNDS, **change)
        said = rank([*four()[:3], odd], control_plane=3, vip=VIP).explain(odd.node, control_plane=3)
        assert words in said


def test_a_candidate_for_a_cluster_of_another_shape_is_refused() -> None:
    odd = candidate_of(9, Bounds.bounded(control_plane=1, nodes_max=9))
    said = rank([*four(), odd], control_plane=3).explain(odd.node, control_plane=3)
    assert said == "worker: it is set up for a control plane of 1, not 3"


def test_too_few_servers_are_counted_and_the_refused_are_named() -> None:
    one, two, three, _ = four()
    plan = elected([one, two, replace(three, direct=False)])
    assert isinstance(plan, NotYet)
    assert plan.reason == (
        "2 of 3 servers found (n1, n2); n3: the others reach it through a relay only"
    )


def test_of_two_equally_large_groups_of_settings_that_of_the_best_ranked_counts() -> None:
    one, two, three, four_ = four()
    odd = [replace(c, settings_hash="00" * 32) for c in (three, four_)]
    eligible = rank([one, two, *odd], control_plane=3).eligible
    assert [c.name for c in eligible] == ["n1", "n2"]


def test_an_unknown_node_is_called_unknown() -> None:
    said = rank(four(), control_plane=3).explain(signer_of(77).node_id, control_plane=3)
    assert said == "not a candidate: nothing is known of it"


def test_equal_candidates_elect_equally_whatever_the_hash_seed() -> None:
    program = (
        "from tests.roles.test_election import elected, four\n"
        "print(elected([*four()[2:], *four()[:2]]))\n"
    )
    plans = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1", "2")
    }
    assert len(plans) == 1
    assert "initialiser" in plans.pop()


def test_who_failed_last_ranks_last_of_those_that_failed() -> None:
    first = [c.node for c in rank(four(), control_plane=3).eligible]
    best, second, third, fourth = first
    again = {best: 3, second: 1, third: 2, fourth: 1}
    ranked = rank(four(), control_plane=3, failed_before=again).eligible
    assert [c.node for c in ranked] == [second, fourth, third, best]
