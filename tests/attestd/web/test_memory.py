"""What clients make us hold is bounded, and only who holds much gives way."""

from attestd.web.memory import Held


def test_a_large_body_gives_way_when_there_is_no_room() -> None:
    held = Held(limit=1000, small=100)
    assert not held.count("a", 900)
    assert held.count("b", 200)
    held.forget("b")
    assert not held.count("c", 100)


def test_small_requests_are_taken_even_then() -> None:
    held = Held(limit=1000, small=100)
    held.count("a", 1001)
    assert not held.count("b", 100)


def test_what_was_answered_or_left_makes_room_again() -> None:
    held = Held(limit=1000, small=100)
    held.count("a", 1000)
    held.count("a", 0)
    assert not held.count("b", 1000)
    held.forget("a")
    held.forget("b")
    assert not held.count("c", 1000)
    assert "c" in held
    assert "b" not in held
