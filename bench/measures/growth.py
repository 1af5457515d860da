"""10: what a call costs as work grows: larger prompts, more targets in a route, more routes, more keys.

What has to be flat is measured in many short turns; what the number of targets does to the core alone is
counted in instructions besides, where a percent shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, Final

from bench.measures.core import core_alone
from bench.measures.paced import unlimited
from bench.rig import bodies, load
from bench.rig.bench import BARE, ROUTER, Bench
from bench.rig.finding import Finding, interleaved
from bench.rig.subjects import UNARY, Subject, Traffic

_PROMPTS: Final = (1_000, 10_000, 100_000, 1_000_000)
_TARGETS: Final = (1, 20, 200)
_ROUTES: Final = (1, 100, 10_000)
_KEYS: Final = (1, 100, 10_000)
_KEY: Final = "mr-bench"
_TURNS: Final = 5
_CALLS: Final = 300
_FLAT: Final = 1.15

Curve = Sequence[tuple[int, float]]


def measure(bench: Bench) -> list[Finding]:
    """Return how fast the cost of a call grows."""
    prompts = _prompts(bench)
    for name, curve in prompts.items():
        bench.curves[f"bytes of the prompt: {name}"] = curve
    findings = [
        *(_point(f"prompt of {size:,} bytes: CPU", size, prompts) for size in _PROMPTS),
        Finding(
            10,
            "prompts: growth of the cost over growth in bytes",
            steepest(prompts[ROUTER]),
            1.1,
            against="",
        ),
        Finding(
            10, "prompts: what a byte costs, at 1 MB over at 100 kB", per_byte(prompts[ROUTER]), against=""
        ),
    ]
    curve = [(size, core_alone(bench, size)[0] / 1_000) for size in _TARGETS]
    findings += _flat(bench, "targets per route", "instructions of the core", "k", curve)
    for words, sizes, change in (
        ("targets per route", _TARGETS, _with_targets),
        ("routes", _ROUTES, _with_routes),
        ("API keys", _KEYS, _with_keys),
    ):
        findings += _flat(bench, words, "CPU", "µs", _configured(bench, sizes, change))
    return findings


def _flat(bench: Bench, words: str, what: str, unit: str, curve: Curve) -> list[Finding]:
    """Return how much more each size takes than the first, of which there has to be no end in sight."""
    bench.curves[f"{words}: {what}"] = curve
    (least_size, least), (most_size, _) = curve[0], curve[-1]
    return [
        Finding(
            10,
            f"{size:,} {words}: {what}",
            cost / least,
            _FLAT if size == most_size else None,
            ours=cost,
            other=least,
            unit=unit,
            against=f"{least_size}",
        )
        for size, cost in curve[1:]
    ]


def _prompts(bench: Bench) -> dict[str, Curve]:
    curves: dict[str, list[tuple[int, float]]] = {ROUTER: [], BARE: []}
    everyone = {ROUTER: bench.router(), BARE: bench.bare(UNARY.name)}
    for size in _PROMPTS:
        request = bodies.framed(bodies.chat(UNARY.name, size))
        traffic = Traffic(f"unary-{size}", "Chat", request, UNARY.path, b"", least=UNARY.least)
        runs = {name: partial(bench.loaded, subject, traffic) for name, subject in everyone.items()}
        for name, loads in interleaved(runs, bench.effort.repeats).items():
            curves[name].append((size, median(load.cpu_per_call for load in loads)))
    return dict(curves)


def _point(words: str, size: int, curves: dict[str, Curve]) -> Finding:
    ours, bare = dict(curves[ROUTER])[size], dict(curves[BARE])[size]
    return Finding(10, words, ours / bare, ours=ours, other=bare, unit="µs")


def steepest(curve: Curve) -> float:
    """Return by how much the cost grows over the bytes, where that is most; 1: all of it is the bytes'."""
    return max((after / before) / (larger / size) for (size, before), (larger, after) in pairwise(curve))


def per_byte(curve: Curve) -> float:
    """Return by how much a byte costs more in the largest than in the one before, beyond what all cost."""
    (least, base), *_, (large, cost), (largest, highest) = curve
    return (highest - base) / (largest - least) / ((cost - base) / (large - least))


def _configured(bench: Bench, sizes: Sequence[int], change: Callable[[dict[str, Any], int], None]) -> Curve:
    """Return the CPU time for each size, by the median of many short turns' ratios to the first size."""
    upstreams = {UNARY.name: bench.instant(UNARY.name)}
    routers: dict[str, Subject] = {}
    for size in sizes:
        router = routers[str(size)] = bench.new_router(upstreams, partial(_changed, change, size))
        router.headers = _shown
    runs = {size: partial(_turn, router) for size, router in routers.items()}
    interleaved(runs, 1)
    found = interleaved(runs, _TURNS)
    for router in routers.values():
        router.process.stop()
    first = found[str(sizes[0])]
    cost = median(first)
    return [
        (int(size), cost * median(mine / its for mine, its in zip(costs, first, strict=True)))
        for size, costs in found.items()
    ]


def _turn(router: Subject) -> float:
    return load.run(router.target(UNARY), _CALLS).cpu_per_call


def _changed(change: Callable[[dict[str, Any], int], None], size: int, config: dict[str, Any]) -> None:
    unlimited(config)
    change(config, size)


def _with_targets(config: dict[str, Any], count: int) -> None:
    more = {f"t{number}": {"provider": UNARY.name, "model": f"m{number}"} for number in range(count - 1)}
    config["targets"] |= more
    config["routes"][UNARY.name]["targets"] += list(more)


def _with_routes(config: dict[str, Any], count: int) -> None:
    config["routes"] |= {f"r{number}": {"targets": [UNARY.name]} for number in range(count - 1)}


def _with_keys(config: dict[str, Any], count: int) -> None:
    keys = [{"name": "bench", "sha256": _hash(_KEY)}]
    keys += [{"name": f"k{number}", "sha256": _hash(f"{number}")} for number in range(count - 1)]
    config["auth"] = {"api_keys": keys}


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _shown(_traffic: Traffic) -> Sequence[str]:
    return (f"x-api-key: {_KEY}",)
