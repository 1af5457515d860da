"""What replicas leave for each other of breakers and checks: both stores do the same with it."""

from __future__ import annotations

import asyncio

import pytest

from router_server.core.agreement import Heard, Say, Word
from router_server.core.status import CheckReport
from router_server.state.breaker_board import SharedBoard
from router_server.state.rota import SharedRota
from router_server.state.store import Store, key

LONG = 600.0
NOTHING = Say()


async def said(board: SharedBoard, say: Say, target: str = "t") -> Heard:
    return (await board.exchange({target: say}))[target]


async def test_what_one_says_the_others_hear(store: Store) -> None:
    a, b = SharedBoard(store), SharedBoard(store)
    assert await said(a, NOTHING) == Heard()
    mine = await said(a, Say(Word.OPEN, LONG, 2))
    theirs = await said(b, NOTHING)
    assert (mine.mine, theirs.mine) == (True, False)
    assert (mine.word, mine.stamp, mine.reopened) == (theirs.word, theirs.stamp, theirs.reopened)
    assert (theirs.word, theirs.reopened) == (Word.OPEN, 2)
    assert LONG - 60 < theirs.left <= LONG
    closed = await said(b, Say(Word.CLOSED))
    assert closed.stamp > mine.stamp
    assert (await said(a, NOTHING)).word is Word.CLOSED


async def test_several_targets_in_one_step(store: Store) -> None:
    board = SharedBoard(store)
    await board.exchange({"a": Say(Word.OPEN, LONG), "b": NOTHING, "c": Say(Word.CLOSED)})
    heard = await SharedBoard(store).exchange({"c": NOTHING, "b": NOTHING, "a": NOTHING})
    assert {name: str(one.word) for name, one in heard.items()} == {"a": "open", "b": "", "c": "closed"}


async def test_one_has_the_right_to_probe(store: Store) -> None:
    a, b = SharedBoard(store), SharedBoard(store)
    opened = await said(a, Say(Word.OPEN, 0.0))
    stale = await said(b, Say(Word.PROBING, LONG, seen=opened.stamp - 1))
    assert (stale.word, stale.mine) == (Word.OPEN, False), "it has not heard the last word"
    first = await said(b, Say(Word.PROBING, LONG, seen=opened.stamp))
    assert (first.word, first.mine) == (Word.PROBING, True)
    second = await said(a, Say(Word.PROBING, LONG, seen=first.stamp))
    assert (second.word, second.mine, second.stamp) == (Word.PROBING, False, first.stamp)
    assert (await said(b, Say(Word.PROBING, LONG, seen=first.stamp))).mine, "it is prolonged"


async def test_a_right_to_probe_ends(store: Store) -> None:
    a, b = SharedBoard(store), SharedBoard(store)
    heard = await said(a, Say(Word.PROBING, 0.001))
    async with asyncio.timeout(20):
        while not (heard := await said(b, Say(Word.PROBING, LONG, seen=heard.stamp))).mine:
            pass


async def test_a_turn_is_ones_until_it_ends_or_the_next_is_due(store: Store) -> None:
    a, b = SharedRota(store), SharedRota(store)
    assert await a.take("p", LONG) == 0
    assert LONG - 60 < await b.take("p", LONG) <= LONG
    assert await b.take("q", LONG) == 0
    await a.report("p", CheckReport(True, 1.5, 0.25), None, 0.001)
    async with asyncio.timeout(20):
        while await b.take("p", LONG):
            pass
    assert await a.take("p", LONG) > 0


async def test_reports_are_read_as_they_were_written(store: Store) -> None:
    rota = SharedRota(store)
    bad = CheckReport(False, 1763700000.123456, 0.1 + 0.2, "http_503", asked=True)
    await rota.report("p", bad, bad, LONG)
    good = CheckReport(None, 1763700060.5, 0.01)
    await rota.report("q", good, None, LONG)
    assert await SharedRota(store).reports(["q", "none", "p"]) == [good, None, bad]
    await rota.report("p", good, None, LONG)
    kept = await store.fields(key("health", "p"))
    assert (await rota.reports(["p"]), b"http_503" in kept["last_failed"]) == ([good], True)


@pytest.mark.parametrize(
    "packed", [b"nonsense", b"[]", b'{"well": true}', b'{"well": 1, "at": 2, "took": 3, "new": 4}']
)
async def test_a_report_of_another_version_is_read_as_far_as_it_goes(store: Store, packed: bytes) -> None:
    await store.put_fields(key("health", "p"), {"last": packed}, LONG)
    (report,) = await SharedRota(store).reports(["p"])
    assert report == (CheckReport(True, 2, 3) if b"new" in packed else None)
