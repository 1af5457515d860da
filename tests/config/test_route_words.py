"""What check-config and the server say of a route."""

from __future__ import annotations

import pytest

from router_server.config.route_words import route_words
from tests.config.reading import config_of


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("{targets: [a]}", "a"),
        ("{targets: [a, b], fallback: [c]}", "a, then b, then c"),
        (
            "{targets: [a, b], sticky: {ttl: 1h, shares: {a: 4, b: 1}}}",
            "a, then b; kept for each user_id for 3600s (a 80%, b 20%)",
        ),
        ("{targets: [a], experiment: {target: c, share: 0.05}}", "a; first c for 0.05 of the calls"),
        (
            "{targets: [a], experiment: {target: c, share: 0.5, by: 'label:team', name: try-c}}",
            "a; first c for 0.5 of the calls, by label team, called try-c",
        ),
        ("{targets: [a], shadow: {target: c, share: 0.5}}", "a; copies of 0.5 of the calls to c"),
        ("{targets: [a], sticky: {by: 'label:team'}}", "a; kept for each label team for 3600s"),
        ("{targets: [a, b], affinity: {by: user_id}}", "a, then b; the same for each user_id"),
        ("{targets: [a], cache: {ttl: 1h}}", "a; answers kept for 3600s"),
        ("{targets: [a], cache: {across_keys: true}}", "a; answers kept for 86400s for all callers together"),
        ("{targets: [a], aliases: [d, e]}", "a; also called d, e"),
        ("{targets: [a], strategy: round_robin, fallback: [c]}", "a, then c"),
        ("{targets: [a, b], strategy: round_robin}", "a or b in turn"),
        (
            "{targets: [{target: a, weight: 4}, b], strategy: weighted, fallback: [c]}",
            "a (4 of 5) or b (1 of 5) by weight, then c",
        ),
        ("{targets: [a, b], strategy: weighted}", "a or b by weight"),
        ("{targets: [a, b], strategy: least_inflight}", "a or b whichever has the fewest calls"),
        ("{targets: [a, b], strategy: least_connections}", "a or b whichever has the fewest calls"),
        ("{targets: [{target: a, weight: 2}, b], strategy: random}", "a (2 of 3) or b (1 of 3) at random"),
        ("{targets: [a, b], strategy: lowest_latency}", "a or b whichever begins soonest"),
        ("{targets: [a, b, c], strategy: lowest_cost}", "a or b or c whichever is cheapest for the call"),
    ],
)
def test_a_route_in_words(route: str, words: str) -> None:
    config = config_of(f"""
        providers: {{m: {{kind: mock}}}}
        targets:
          a: {{provider: m, model: x}}
          b: {{provider: m, model: x}}
          c: {{provider: m, model: x}}
        routes: {{r: {route}}}
    """)
    assert route_words(config.routes["r"]) == words
    assert route_words(config.routes["r"], lambda name: f"<{name}>").startswith("<a>")
