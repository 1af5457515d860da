from __future__ import annotations

from router_server.telemetry.access_log import FIELDS
from router_server.telemetry.conventions import UPSTREAM_LABELS
from router_server.telemetry.instruments import METRICS
from router_server.telemetry.metric import Metric
from tests.docs.pages import DOCS, table

PAGE = DOCS / "telemetry.md"


def documented(metric: Metric) -> dict[str, str]:
    labels = list(metric.labels)
    if set(UPSTREAM_LABELS) <= set(labels):
        labels = ["upstream", *(label for label in labels if label not in UPSTREAM_LABELS)]
    return {
        "metric": metric.name,
        "kind": metric.instrument.name.lower(),
        "labels": ", ".join(labels),
        "what": metric.description,
    }


def test_the_page_lists_every_metric() -> None:
    assert table(PAGE, "metric") == [documented(metric) for metric in METRICS]
    upstream = ", ".join(f"`{label}`" for label in UPSTREAM_LABELS)
    assert f"*upstream* is {upstream}." in " ".join(PAGE.read_text().split())


def test_the_page_lists_every_field_of_an_access_line() -> None:
    assert [row["field"] for row in table(PAGE, "field")] == list(FIELDS)
