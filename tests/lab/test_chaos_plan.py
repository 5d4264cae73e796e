"""What the planner of `make lab-chaos` may draw: its bounds hold for every seed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

from simulations.lab.chaos_plan import LASTING, MOMENTS, Plan, draw

SEEDS = range(3000)


def wipes(plan: Plan) -> int:
    """Return how many disks a plan erases."""
    return sum(fault.verb == "wipe" for fault in plan.faults)


def test_no_plan_wipes_more_disks_than_the_guarantee_bears() -> None:
    plans = [draw(seed) for seed in SEEDS]
    for plan in plans:
        bound, quorum = plan.nodes_max, plan.quorum
        assert wipes(plan) <= max(0, min(bound - quorum, 2 * quorum - 1 - bound)), plan.seed
        assert plan.nodes - wipes(plan) >= max(quorum, plan.control_plane), plan.seed
    assert sum(map(wipes, plans)) > len(plans) / 20


def test_no_plan_takes_supervisor_and_fuse_from_a_node_whose_daemon_stands_still() -> None:
    for seed in SEEDS:
        verbs = {fault.verb for fault in draw(seed).faults}
        assert not {"freeze-meshd", "kill-supervisor", "kill-fuse"} <= verbs, seed


def test_every_fault_is_drawn_at_every_moment_of_formation() -> None:
    drawn = Counter((fault.verb, fault.after) for seed in SEEDS for fault in draw(seed).faults)
    verbs = {verb for verb, _ in drawn}
    assert len(verbs) == 10
    assert {(verb, moment) for verb in verbs for moment in MOMENTS} == set(drawn)


def test_faults_come_in_the_order_of_formation_and_only_what_lasts_has_a_length() -> None:
    for seed in SEEDS:
        plan = draw(seed)
        moments = [MOMENTS.index(fault.after) for fault in plan.faults]
        assert moments == sorted(moments), seed
        assert all(fault.for_s == 0 or fault.verb in LASTING for fault in plan.faults), seed
        everyone = {"first", *(f"n{number + 1}" for number in range(plan.nodes))}
        assert all(set(fault.nodes) <= everyone for fault in plan.faults), seed


def test_a_seed_gives_the_same_plan_in_every_process() -> None:
    program = "from simulations.lab.chaos_plan import draw; print(*map(draw, range(50)), sep='\\n')"
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {"\n".join(str(draw(seed)) for seed in range(50)) + "\n"}
