"""Which mutant is caught by which check, and how: random seeds, or a schedule made for it.

Every mutant is in the table, so that none is forgotten. A check that none makes fire is weak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulations.model.checkers import Violation
from simulations.model.checks import CHECKS, check_of
from simulations.model.runs import run_seed
from tests.model.broken import BROKEN
from tests.model.stage import formed, play
from tests.model.test_schedules import (
    CLOCK_AHEAD,
    ENDS_AGAIN,
    ONE_BETWEEN,
    OVERLAPS,
    VOTED_AND_RESTARTED,
    X_AGAIN,
)

ALL = range(160)
SIEGES = range(1, 4 * 100, 4)  # One seed in four is a siege: scenario.siege_of.
DUELS = range(3, 4 * 800, 4)  # And one a duel: scenario.duel_of.

_SEQUENCES = {ALL: "all seeds", SIEGES: "the sieges", DUELS: "the duels"}

KNOWN = {"no-fsync": 359, "no-journal": 267, "no-adoption": 2167}
"""Rare mutants are looked for from the first seed on that caught them."""

S2, S4 = "S2 one decision in a slot", "S4 no abandoned k3s beside a later one"
SAID = "what is over for good is on the disk before it is said"
S3B = "S3b no generation before the last one is over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Catch:
    """Where a mutant is looked for, and which check must stop it.

    Args:
        seeds: searched in this order; none if there is a schedule.
        known: that seed of them to begin with; None: the first.
        schedule: its name in `SCHEDULES`.
    """

    mutant: str
    check: str
    seeds: range = range(0)
    known: int | None = None
    schedule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a mutant was caught."""

    catch: Catch
    where: str  # And how it was come by.
    failure: str


BY_SEED = {
    "persist-after-send": ("a vote is on the disk before it is seen", DUELS),
    "no-fsync": (S2, DUELS),
    "no-journal": (S2, DUELS),
    "no-adoption": (S2, DUELS),
    "quorum-minus-one": (S2, DUELS),
    "again-after-done": (S3B, ALL),
    "again-after-done-unseen": ("S3a one generation forms", ALL),
    "start-before-started": ("an order to start only after STARTED", ALL),
    "start-before-started-unseen": ("a start only after STARTED", ALL),
    "all-initialise": ("S1 one cluster-init in a generation", ALL),
    "another-initialises": ("a start only by the initialiser", ALL),
    "secrets-before-claim": ("no secret before CLAIM", ALL),
    "secrets-for-everyone": ("no secret outside the plan before DONE", ALL),
    "server-token-for-workers": ("no server token for workers", ALL),
    "formed-before-done": ("formed only after DONE", ALL),
    "workers-before-done": ("workers only after DONE", ALL),
    "leaves-when-formed": ("nobody is ordered to leave", ALL),
    "leaves-a-later-generation": ("nobody is ordered to leave", SIEGES),
    "orders-without-lease": ("a lease before DONE", ALL),
    "nobody-to-join": ("who joins knows whom", ALL),
    "joins-the-vip": ("nobody joins itself or the VIP", ALL),
    "own-cluster-abandoned": ("what is abandoned is not run", ALL),
    "never-stops": ("who gave up stays down", ALL),
    "old-data-stay": ("formed after healing", SIEGES),
    "any-clock": ("no k3s with a clock never set", ALL),
    "r8-done-with-too-few": ("DONE with enough etcd voters", SIEGES),
    "down-unkept": (SAID, SIEGES),
    "give-up-unkept": (SAID, SIEGES),
    "intent-unkept": ("a start only by who meant it", ALL),
    "one-vote-short": ("a record has a quorum's votes", ALL),
    "done-of-strangers": ("DONE names members of the plan", ALL),
    "done-of-nothing": ("DONE only of a cluster", DUELS),
    "done-of-another": ("DONE names the cluster", ALL),
    "done-of-nobody": ("nobody honest is rejected", ALL),
}

ENDLESS = "cut off, and neither gives up"
"""The schedule in which two voters wait for each other for ever without R2."""

SCHEDULES = {
    **OVERLAPS,
    "k3s that ends again and again": (ENDS_AGAIN, "any-reading", 120.0),
    "a clock that is ahead": (CLOCK_AHEAD, "any-clock", 60.0),
    "voted, and restarted": (VOTED_AND_RESTARTED, "next-after-own-vote", 260.0),
    "an initialiser again": (X_AGAIN, "keeps-its-secrets", 242.0),
}

CATCHES = (
    *(
        Catch(mutant=name, check=check, seeds=seeds, known=KNOWN.get(name))
        for name, (check, seeds) in BY_SEED.items()
    ),
    *(Catch(mutant=rule, check=S4, schedule=name) for name, (_, rule, _) in OVERLAPS.items()),
    Catch(
        mutant="any-reading",
        check="given up for its own k3s only",
        schedule="k3s that ends again and again",
    ),
    Catch(
        mutant="any-clock",
        check="no k3s with a refuted clock",
        schedule="a clock that is ahead",
    ),
    Catch(
        mutant="keeps-its-secrets",
        check="S5 no secret of another cluster",
        schedule="an initialiser again",
    ),
    Catch(mutant="next-after-own-vote", check=S3B, schedule="voted, and restarted"),
    Catch(mutant="r2-never-gives-up", check="formed after healing", schedule=ENDLESS),
)


def find(catch: Catch) -> Found | None:
    """Look for the mutant; None if nothing caught it."""
    if catch.schedule == ENDLESS:
        return _wait_for_ever(catch)
    return _perform(catch) if catch.schedule else _search(catch)


def _search(catch: Catch) -> Found | None:
    strategy = BROKEN[catch.mutant]
    begin = 0 if catch.known is None else catch.seeds.index(catch.known)
    for place in range(begin, len(catch.seeds)):
        seed = catch.seeds[place]
        failure = run_seed(seed, strategy).failure
        if failure is not None and check_of(failure) == catch.check:
            known = f", not searched before the known seed {catch.known}" if begin else ""
            where = f"seed {seed}, number {place + 1} of {_SEQUENCES[catch.seeds]}{known}"
            return Found(catch=catch, where=where, failure=failure)
    return None


def _perform(catch: Catch) -> Found | None:
    script, _, until_s = SCHEDULES[catch.schedule]
    for shift in range(10):
        try:
            play(script, without=catch.mutant, until_s=until_s, shift_s=float(shift))
        except Violation as violation:
            if check_of(str(violation)) == catch.check:
                where = f'schedule "{catch.schedule}", performance {shift + 1}'
                return Found(catch=catch, where=where, failure=str(violation))
    return None


def _wait_for_ever(catch: Catch) -> Found | None:
    if formed(play(ONE_BETWEEN, without=catch.mutant, until_s=196.0 + 3600.0)):
        return None
    failure = "not formed 3600 s after healing"
    return Found(catch=catch, where=f'schedule "{catch.schedule}"', failure=failure)


def weak(found: Sequence[Found]) -> list[str]:
    """Return the checks that no mutant made fire: nothing shows that they can."""
    return sorted(CHECKS.keys() - {one.catch.check for one in found})
