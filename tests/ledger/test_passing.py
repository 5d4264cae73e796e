"""How news travels: to everyone, and to hardly anyone twice."""

from __future__ import annotations

from ledger import decode_entry
from ledger._messages import Push, decode_frame
from tests.ledger.world import NETWORK, World


def pushes_until_quiet(world: World) -> int:
    """Deliver all that is under way, and what comes of it; return how many pushes there were."""
    pushes = 0
    while world.frames:
        pushes += isinstance(decode_frame(world.frames[0].content), Push)
        world.deliver()
        if not world.frames:
            world.wait_a_moment()
    return pushes


def test_news_is_passed_on_once_and_not_back() -> None:
    world = World(4)
    for a, b in ((0, 1), (1, 2), (1, 3), (2, 3)):
        world.link(a, b)
    world.settle()
    world.write(0, "facts", b"v")
    pushes = pushes_until_quiet(world)
    assert world.converged
    assert pushes == 1 + 2 + 1  # 0 to 1; 1 to 2 and 3; the sooner of those to the other.


def test_among_eight_that_are_all_linked_hardly_anybody_hears_the_same_twice() -> None:
    world = World(8)
    for a in range(8):
        for b in range(a):
            world.link(a, b)
    world.settle()
    world.write(0, "facts", b"v")
    world.write(0, "links", b"w")
    pushes = pushes_until_quiet(world)
    assert world.converged
    once_each = 2 * 7
    all_to_all = 2 * 7 * 6
    assert once_each < pushes < once_each + all_to_all / 3


def test_what_became_old_before_it_was_passed_on_is_not() -> None:
    world = World(3)
    world.link(0, 1)
    world.link(1, 2)
    world.settle()
    for value in (b"old", b"new"):
        world.write(0, "facts", value)
        world.deliver()
    assert world.frames == []
    world.wait_a_moment()
    (frame,) = world.frames
    message = decode_frame(frame.content)
    assert isinstance(message, Push)
    assert [decode_entry(one, NETWORK).value for one in message.entries] == [b"new"]


def test_who_left_before_it_was_told_is_not_told() -> None:
    world = World(3)
    world.link(0, 1)
    world.link(1, 2)
    world.settle()
    world.write(0, "facts", b"v")
    world.deliver()
    world.cut(1, 2)
    world.wait_a_moment()
    assert world.frames == []
    world.link(1, 2)
    world.settle()
    assert world.converged
