"""Who is named for what is slow: a table of figures, and the words."""

from __future__ import annotations

import pytest

from dvfd.drills.blame import blame

GOOD, SLOW = 12.5e9, 5e9
WANTED = 11.25e9


def rates(names: str, slow: str, nothing: str = "") -> dict[tuple[str, str], float | None]:
    """All pairs of *names* are good but those like `a>b` in *slow* and *nothing*."""
    found: dict[tuple[str, str], float | None] = {}
    for a in names:
        for b in names:
            if a != b:
                pair = f"{a}>{b}"
                found[a, b] = SLOW if pair in slow.split() else GOOD
                if pair in nothing.split():
                    found[a, b] = None
    return found


@pytest.mark.parametrize(
    ("names", "slow", "named"),
    [
        ("ab", "", []),
        ("ab", "a>b b>a", ["the link a-b or either end (40 Gbps)"]),
        ("ab", "a>b", ["direction a -> b: a as a sender, b as a receiver, or the way between"]),
        ("abc", "a>b b>a", ["the link a-b (40 Gbps)"]),
        ("abc", "b>a", ["direction b -> a (40 Gbps)"]),
        ("abc", "c>a c>b a>c b>c", ["node c: slow with all 2 others"]),
        ("abc", "c>a c>b", ["node c sends slowly to all 2 others"]),
        ("abc", "a>c b>c", ["node c receives slowly from all 2 others"]),
        ("abc", "a>b b>a a>c c>a b>c c>b", ["every pair is slow (40 Gbps)"]),
        ("abcd", "d>a d>b d>c a>d b>d c>d a>b", ["node d: slow", "direction a -> b (40"]),
        ("abcd", "a>b b>a c>d d>c", ["the link a-b (40", "the link c-d (40"]),
        ("abcd", "d>a d>b d>c c>a c>b c>d", ["node c sends slowly", "node d sends slowly"]),
    ],
)
def test_a_node_is_named_only_where_it_is_slow_with_everybody(
    names: str, slow: str, named: list[str]
) -> None:
    found = blame(rates(names, slow), WANTED)
    assert len(found) == len(named), [each.text for each in found]
    assert all(each.text.startswith(text) for each, text in zip(found, named, strict=True))


def test_what_lets_nothing_through_is_slow_too() -> None:
    (one,) = blame(rates("abc", "", nothing="a>b b>a"), WANTED)
    assert one.text == "the link a-b (nothing came through)"
    (two,) = blame(rates("abc", "a>b", nothing="b>a"), WANTED)
    assert two.text == "the link a-b (40 Gbps; in part nothing came through)"
