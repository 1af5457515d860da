import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_server.core.duration import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1d", 86_400.0),
        ("1.5s", 1.5),
        ("1m30s", 90.0),
        ("1h 30m", 5400.0),
        (" 10 s ", 10.0),
        ("0s", 0.0),
        ("7", 7.0),
        (7, 7.0),
        (0.25, 0.25),
        (0, 0.0),
    ],
)
def test_durations_are_seconds(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "5 parsecs",
        "-5s",
        "5s5",
        "1e3s",
        "0x5s",
        "5S",
        ".5s",
        "\u0665s",
        -1,
        math.nan,
        math.inf,
        True,
        "1" * 100 + "s",
    ],
)
def test_anything_else_is_refused_with_an_example(text: str | float) -> None:
    with pytest.raises(ValueError, match="is not a duration: write seconds"):
        parse_duration(text)


@given(st.integers(0, 10**12))
def test_milliseconds_are_exact(count: int) -> None:
    assert parse_duration(f"{count}ms") == count / 1000


@given(st.text(max_size=80))
def test_any_text_is_a_finite_duration_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds < math.inf
