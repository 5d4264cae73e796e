"""A disk that lies: flipped bits, cut and zeroed files, parts of older copies. Never voted from.

Each start must end in one of three ways: refused, with a code; begun with doubt, so that the node
does not vote; or with exactly the votes that were there. Anything else would be a vote from a past
that did not happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from random import Random

import pytest

from tests.store.lives import EVERY, KILLED, KillAt, Lives, boundaries, report
from tests.store.starts import Owner, Starts, State, state_of

PAGE_BYTES = 4096


@pytest.fixture(scope="session")
def closed(lives: Lives, opened_once: Path) -> Path:
    """What a life leaves that ended in an orderly way: all in the database."""
    folder = lives.folder(opened_once)
    assert lives.live(folder) == 0
    return folder


@pytest.fixture(scope="session")
def killed(lives: Lives, opened_once: Path) -> Path:
    """What a life leaves that was killed close to its end: all in the log."""
    kill = KillAt(boundaries(lives, lives.folder(opened_once), "initialiser") - 20)
    folder = lives.folder(opened_once)
    assert lives.live(folder, decide=kill) == KILLED
    assert (folder / "state/meshd.db-wal").stat().st_size > 50 * PAGE_BYTES
    return folder


def outcome(starts: Starts, state: State, votes: object) -> str:
    """Return how a start on that disk ends."""
    refusal, found = starts.on(state)
    if refusal:
        return f"refused, {refusal.split()[0]}"
    if any(key == "doubt" for key, _ in found):
        return "does not vote"
    return "unharmed" if found == votes else "VOTES FROM ANOTHER PAST"


def flips(state: State) -> Iterator[tuple[str, State]]:
    """Yield the disk with one bit flipped, at every position or at many."""
    rng = Random(5)
    for name, content in state.items():
        assert content is not None
        steps = {"state/votes.head": 1, "state/meshd.db": 1 if EVERY else 97}
        step = steps.get(name, 13 if EVERY else 997)
        for position in range(rng.randrange(step), len(content), step):
            flipped = bytearray(content)
            flipped[position] ^= 1 << rng.randrange(8)
            yield f"bit flipped in {Path(name).name}", {**state, name: bytes(flipped)}


def cuts(state: State) -> Iterator[tuple[str, State]]:
    """Yield the disk with a file cut short, zeroed in part, or gone."""
    for name, content in state.items():
        assert content is not None
        short = Path(name).name
        gone = {other: kept for other, kept in state.items() if other != name}
        yield f"{short} gone", gone
        step = PAGE_BYTES if EVERY or len(content) < 20 * PAGE_BYTES else 5 * PAGE_BYTES
        for position in range(0, len(content), step):
            for length in (position, position + 1, position + 777):
                yield f"{short} cut", {**state, name: content[:length]}
            zeroed = content[:position] + bytes(PAGE_BYTES) + content[position + PAGE_BYTES :]
            yield f"page of {short} zeroed", {**state, name: zeroed[: len(content)]}


def mixtures(one: State, other: State) -> Iterator[tuple[str, State]]:
    """Yield the first disk with each choice of its files taken from the second."""
    names = sorted({*one, *other})
    for choice in range(1, 2 ** len(names) - 1):
        taken = [name for bit, name in enumerate(names) if choice >> bit & 1]
        mixed = {n: (other if n in taken else one).get(n) for n in names}
        yield (
            "with " + ", ".join(Path(name).name for name in taken) + " of another time",
            {name: content for name, content in mixed.items() if content is not None},
        )


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_no_damage_makes_a_node_vote_from_another_past(
    request: pytest.FixtureRequest, opened_once: Path, memory: Path, left: str
) -> None:
    starts = Starts(memory, Owner.of(opened_once))
    state = state_of(request.getfixturevalue(left))
    refusal, votes = starts.on(state)
    assert not refusal
    assert len(votes) > 5
    outcomes = Counter[tuple[str, str]]()
    for what, damaged in (*flips(state), *cuts(state)):
        outcomes[what, outcome(starts, damaged, votes)] += 1
    report(left, (f"{count:6} {what}: {how}" for (what, how), count in sorted(outcomes.items())))
    ways = Counter[str]()
    for (_, how), count in outcomes.items():
        ways[how] += count
    assert "VOTES FROM ANOTHER PAST" not in ways, outcomes
    assert min(ways["does not vote"], ways["refused, MESH-2003"], ways["unharmed"]) > 0, ways


def times_of(lives: Lives, start: Path) -> Iterator[Path]:
    """Yield one daemon's folder at five times, with and without a log."""
    yield start
    whole = boundaries(lives, lives.folder(start), "initialiser")
    half = lives.folder(start)
    assert lives.live(half, decide=KillAt(whole // 2)) == KILLED
    yield half
    rested = lives.folder(half)
    assert lives.live(rested, start_only=True) == 0  # Its end copies the log into the database.
    yield rested
    later = lives.folder(rested)
    assert lives.live(later, decide=KillAt(whole // 3), seed=1) == KILLED
    yield later
    done = lives.folder(later)
    assert lives.live(done, seed=2) == 0
    yield done


def test_no_mixture_of_two_times_makes_a_node_vote(
    lives: Lives, opened_once: Path, memory: Path
) -> None:
    """What remains is a whole copy of one time: that has no mark, and only others can tell."""
    starts = Starts(memory, Owner.of(opened_once))
    times = [state_of(folder) for folder in times_of(lives, opened_once)]
    known = [starts.on(time) for time in times]
    assert len({found for found in known if not found[0]}) >= 4, "the times do not differ"
    outcomes = Counter[str]()
    for one, other in permutations(range(len(times)), 2):
        for what, mixed in mixtures(times[one], times[other]):
            head = mixed.get("state/votes.head")
            same = [k for k, t in zip(known, times, strict=True) if t["state/votes.head"] == head]
            found = starts.on(mixed)
            doubts = any(key == "doubt" for key, _ in found[1])
            assert found[0] or doubts or found in same, f"time {one} {what} {other}"
            outcomes["refused" if found[0] else "does not vote" if doubts else "unharmed"] += 1
    report("mixtures", (f"{count:6} {how}" for how, count in sorted(outcomes.items())))
    assert outcomes["does not vote"] > 10, outcomes
