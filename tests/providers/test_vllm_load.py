"""What a vLLM server's ``/metrics`` says of its load."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_server.core.provider import EngineLoad
from router_server.providers._vllm_load import Crowding, read_load
from router_server.providers._vllm_settings import endpoint_name
from tests.vllm_exposition import exposition

CROWDING = Crowding(waiting=4, cache=0.9)


@pytest.mark.parametrize(
    ("engines", "load"),
    [
        ([(0, 0, 0)], EngineLoad(0, 0, 0)),
        ([(7, 2, 0.25)], EngineLoad(7, 2, 0.25)),
        ([(7, 5, 0.25)], EngineLoad(7, 5, 0.25, crowded=True)),
        ([(7, 0, 0.91)], EngineLoad(7, 0, 0.91, crowded=True)),
        ([(3, 1, 0.95), (4, 2, 0.5)], EngineLoad(7, 3, 0.5)),
    ],
    ids=["idle", "busy", "many wait", "its cache is full", "two engines"],
)
def test_the_load_of_a_server(engines: list[tuple[float, float, float]], load: EngineLoad) -> None:
    assert read_load(exposition(*engines), CROWDING) == load


def test_the_page_of_a_real_server_that_is_idle() -> None:
    """Taken from vLLM 0.32.0 on a CPU, without the buckets of its histograms."""
    page = Path(__file__).with_name("vllm-0.32.0-metrics.txt").read_bytes()
    assert read_load(page, CROWDING) == EngineLoad(0, 0, 0)
    series = b'num_requests_running{engine="0",model_name="small"} '
    busy = page.replace(series + b"0.0", series + b"2.0")
    assert read_load(busy, CROWDING) == EngineLoad(2, 0, 0)


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>Not found</html>",
        b'# HELP vllm:num_requests_running 1\nother:num_requests_running{engine="0"} 3.0\n',
        b"vllm:num_requests_running 3.0\n",
        b"vllm:num_requests_running NaN\nvllm:num_requests_waiting what\n",
    ],
)
def test_a_page_that_does_not_say_it(page: bytes) -> None:
    assert read_load(page, CROWDING) is None


def test_a_page_without_labels_and_the_older_name_of_the_cache() -> None:
    page = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 1e0\nvllm:gpu_cache_usage_perc 0.5\n"
    assert read_load(page, CROWDING) == EngineLoad(3, 1, 0.5)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://gpu-1:8000/v1", "gpu-1:8000"),
        ("http://gpu-1:8000", "gpu-1:8000"),
        ("https://models.example.com/a/v1/", "models.example.com/a"),
        ("unix:///run/vllm/a.sock", "/run/vllm/a.sock"),
    ],
)
def test_what_an_endpoint_is_called(url: str, name: str) -> None:
    assert endpoint_name(url) == name
