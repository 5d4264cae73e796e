"""Safety and liveness of the decision log under faults; and that the judge would notice mutants."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger import Instant
from roles import Bounds, Effect, Record
from roles import _journal as journal_module
from roles import _nomination as nomination_module
from roles import _proposer as proposer_module
from roles._acceptor import Acceptor, Answer
from roles._attempt import Attempt
from roles._genesis import Genesis
from roles._journal import Memory, ballot_of
from roles._log import DecisionLog
from roles._messages import Accept, Authentic, BadMessage, Ballot, Prepare, Promise, write_record
from roles._proposer import Proposer
from roles._state import Slot
from tests.roles.world import HARSH, Faults, Violation, World

SHAPES = [  # Machines that exist, machines the token allows, control plane.
    (1, 1, 1),
    (3, 3, 1),
    (5, 5, 1),
    (3, 5, 3),
    (5, 5, 3),
    (4, 7, 3),
    (5, 9, 5),
]
SEEDS = 15
MUTANT_SEEDS_MAX = 100


def world_of(seed: int, shape: tuple[int, int, int], faults: Faults | None = None) -> World:
    size, most, control_plane = shape
    bounds = Bounds.bounded(control_plane=control_plane, nodes_max=most)
    return World(seed, size=size, bounds=bounds, faults=faults)


@pytest.fixture
def impolite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everyone proposes at once and yields to no one: what turns are for must not be safety."""
    monkeypatch.setattr(nomination_module, "TURN_S", 0.0)
    monkeypatch.setattr(nomination_module, "SETTLE_S", 0.05)
    monkeypatch.setattr(proposer_module, "YIELD_S", 0.3)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_value_per_slot_and_an_end_once_the_world_heals(shape: tuple[int, int, int]) -> None:
    for seed in range(SEEDS):
        world = world_of(seed, shape)
        world.run(world.faults.until_s)
        assert world.run_until_formed(world.faults.until_s + 60.0), f"seed {seed}"
        plans = {m.genesis.state.plan for m in world.members if m.genesis}
        assert len(plans) == 1, f"seed {seed}"


@pytest.mark.usefixtures("impolite")
@pytest.mark.parametrize("shape", [(3, 3, 1), (5, 5, 1), (5, 5, 3)], ids=str)
def test_duelling_proposers_cost_time_but_never_agreement(shape: tuple[int, int, int]) -> None:
    duels = 0
    for seed in range(SEEDS):
        world = world_of(seed, shape, HARSH)
        world.run(HARSH.until_s)
        assert world.run_until_formed(HARSH.until_s + 60.0), f"seed {seed}"
        duels += len(world.judge.ballots("claim")) > 1
    assert duels > SEEDS // 4  # Otherwise nothing was put to the test.


def test_a_run_is_a_function_of_its_seed_whatever_the_hash_seed() -> None:
    program = (
        "from roles import Bounds\n"
        "from tests.roles.world import World\n"
        "import hashlib\n"
        "world = World(7, size=5, bounds=Bounds.bounded(control_plane=3))\n"
        "world.run(70)\n"
        "print(hashlib.sha256('\\n'.join(world.log).encode()).hexdigest(), len(world.log))\n"
    )
    outputs = {
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
    assert len(outputs) == 1
    assert int(outputs.pop().split()[1]) > 50


# Mutants: each breaks one rule of the protocol, and the judge must notice.

Break = Callable[[pytest.MonkeyPatch], None]


def promises_are_not_written(patch: pytest.MonkeyPatch) -> None:
    honest = Acceptor.prepare
    patch.setattr(Acceptor, "prepare", lambda self, ask: replace(honest(self, ask), rows=()))


def votes_are_not_written(patch: pytest.MonkeyPatch) -> None:
    honest = Acceptor.accept

    def accept(self: Acceptor, ask: Accept, value: bytes) -> Answer:
        return replace(honest(self, ask, value), rows=())

    patch.setattr(Acceptor, "accept", accept)


def votes_are_sent_before_they_are_written(patch: pytest.MonkeyPatch) -> None:
    honest = Genesis._answer

    def answer(
        self: Genesis, ask: Prepare | Accept, sealed: Authentic, now: Instant
    ) -> list[Effect]:
        effects = honest(self, ask, sealed, now)
        return sorted(effects, key=lambda effect: isinstance(effect, Record))

    patch.setattr(Genesis, "_answer", answer)


def a_higher_promise_is_ignored(patch: pytest.MonkeyPatch) -> None:
    def floor(self: Memory, slot: Slot) -> Ballot | None:
        vote = self.accepted.get(slot)
        return ballot_of(vote) if vote is not None else None

    patch.setattr(Memory, "floor", floor)


def an_accepted_value_is_not_adopted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attempt, "value_to_adopt", lambda _: None)


def a_promise_hides_what_was_accepted(patch: pytest.MonkeyPatch) -> None:
    honest = Acceptor.prepare

    def prepare(self: Acceptor, ask: Prepare) -> Answer:
        answer = honest(self, ask)
        if answer.refused:
            return answer
        kept = dict(self._memory.accepted)
        self._memory.accepted.clear()
        hidden = honest(self, ask)
        self._memory.accepted.update(kept)
        return replace(hidden, rows=answer.rows)

    patch.setattr(Acceptor, "prepare", prepare)


def phase_one_needs_no_quorum(patch: pytest.MonkeyPatch) -> None:
    honest = Proposer.proceed

    def proceed(self: Proposer, now: Instant) -> list[Effect]:
        quorum, self.quorum = self.quorum, 1
        effects = honest(self, now)
        self.quorum = quorum
        return effects

    patch.setattr(Proposer, "proceed", proceed)


def the_quorum_is_one_too_small(patch: pytest.MonkeyPatch) -> None:
    def take_record(self: Proposer) -> bytes | None:
        attempt = self.attempt
        if attempt is None or attempt.preparing or len(attempt.votes) < self.quorum - 1:
            return None
        self.stop()
        return write_record(attempt.ask.value, attempt.votes.values())

    patch.setattr(Proposer, "take_record", take_record)


def a_restart_forgets_the_own_ballot(patch: pytest.MonkeyPatch) -> None:
    honest = journal_module._remember

    def remember(memory: Memory, found: Authentic) -> None:
        if not isinstance(found.message, Prepare | Promise):
            honest(memory, found)

    patch.setattr(journal_module, "_remember", remember)


def k3s_starts_on_a_claim_alone(patch: pytest.MonkeyPatch) -> None:
    # Whoever accepted a CLAIM of its own thinks that it may begin.
    def may_initialise(self: DecisionLog) -> bool:
        vote = self.memory.accepted.get("claim")
        return vote is not None and ballot_of(vote).node == self._me

    patch.setattr(DecisionLog, "may_initialise", property(may_initialise))


MUTANTS: list[Break] = [
    promises_are_not_written,
    votes_are_not_written,
    votes_are_sent_before_they_are_written,
    a_higher_promise_is_ignored,
    an_accepted_value_is_not_adopted,
    a_promise_hides_what_was_accepted,
    phase_one_needs_no_quorum,
    the_quorum_is_one_too_small,
    a_restart_forgets_the_own_ballot,
    k3s_starts_on_a_claim_alone,
]


@pytest.mark.usefixtures("impolite")
@pytest.mark.parametrize("break_rule", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_judge_catches(break_rule: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    break_rule(monkeypatch)
    caught = next(violations(), None)
    assert caught is not None, f"not noticed in {MUTANT_SEEDS_MAX} seeds"


def violations() -> Iterator[str]:
    """Run seed after seed; yield what the judge has to say."""
    for seed in range(MUTANT_SEEDS_MAX):
        world = world_of(seed, [(3, 3, 1), (5, 5, 1)][seed % 2], HARSH)
        try:
            world.run(HARSH.until_s + 10.0)
        except (Violation, BadMessage) as caught:  # A record that lacks votes cannot be made.
            yield f"seed {seed}: {caught}"
