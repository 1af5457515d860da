"""Who has a budget: what may be written, and how it is said."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from router_server.cli import main
from router_server.config import ConfigError
from router_server.core.budget import Budget, Terms, WhenSpent
from tests.config.reading import config_of

PARTS = """
providers: {{m: {{kind: mock, budget: {provider}}}}}
targets: {{t: {{provider: m, model: x}}}}
routes: {{chat: {{targets: [t], budget: {route}}}}}
"""


def test_terms_are_exact_in_billionths() -> None:
    text = PARTS.format(provider="null", route="{daily_usd: 0.1, monthly_usd: 2500, timezone: Europe/Berlin}")
    budget = config_of(text).routes["chat"].budget
    assert budget is not None
    zone = ZoneInfo("Europe/Berlin")
    assert budget.terms == Terms(100_000_000, 2_500_000_000_000, WhenSpent.REFUSE, zone)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("{}", "limits nothing; set daily_usd or monthly_usd"),
        ("{on_exhausted: next}", "limits nothing"),
        ("{daily_usd: 0}", "daily_usd"),
        ("{daily_usd: 1, timezone: Europe/Nowhere}", "is no time zone"),
        ("{daily_usd: 1, timezone: ../etc}", "is no time zone"),
        ("{daily_usd: 1, on_exhausted: stop}", "on_exhausted"),
        ("{daily: 1}", "daily"),
    ],
)
def test_mistakes(budget: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(PARTS.format(provider="null", route=budget))


@pytest.mark.parametrize(
    ("moment", "day", "month"),
    [
        ("2026-11-21T22:59:59", ("2026-11-21", 1.0), ("2026-11", 9 * 86_400 + 1.0)),
        ("2026-11-21T23:00:00", ("2026-11-22", 86_400.0), ("2026-11", 9 * 86_400.0)),
        ("2026-12-31T22:30:00", ("2026-12-31", 1_800.0), ("2026-12", 1_800.0)),
        ("2026-03-28T23:00:00", ("2026-03-29", 23 * 3_600.0), ("2026-03", 3 * 86_400.0 - 3_600.0)),
        ("2026-10-24T22:00:00", ("2026-10-25", 25 * 3_600.0), ("2026-10", 7 * 86_400.0 + 3_600.0)),
    ],
)
def test_days_and_months_are_those_of_the_time_zone(
    moment: str, day: tuple[str, float], month: tuple[str, float]
) -> None:

    now = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    budget = Budget("route/chat", Terms(1, 2, WhenSpent.REFUSE, ZoneInfo("Europe/Berlin")))
    assert [(p.name, p.ends - now, p.limit) for p in budget.periods(now)] == [(*day, 1), (*month, 2)]


def test_check_config_says_who_may_spend_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "router.yaml"
    monthly = "{monthly_usd: 2000, on_exhausted: next, timezone: UTC}"
    file.write_text(PARTS.format(provider=monthly, route="{daily_usd: 1.5}"))
    assert main(["check-config", str(file)]) == 0
    said = capsys.readouterr().out
    assert "Route chat may spend 1.5 USD a day (UTC), then refuses." in said
    assert "Provider m may spend 2000 USD a month (UTC), then goes on with the next target." in said
