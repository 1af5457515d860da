from __future__ import annotations

from router_server.engines.stuck import StuckWatch
from router_server.engines.surface import Load, read_load


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_no_progress_for_as_long_as_allowed_with_something_to_do_is_stuck() -> None:
    clock = Clock()
    watch = StuckWatch(10.0, clock)
    assert not watch.seen(1, busy=True)
    clock.now = 9.9
    assert not watch.seen(1, busy=True)
    clock.now = 10.0
    assert watch.seen(1, busy=True)


def test_progress_and_idleness_begin_anew() -> None:
    clock = Clock()
    watch = StuckWatch(10.0, clock)
    watch.seen(1, busy=True)
    clock.now = 9.0
    watch.seen(2, busy=True)
    clock.now = 18.0
    assert not watch.seen(2, busy=True)
    watch.seen(2, busy=False)
    clock.now = 100.0
    assert not watch.seen(2, busy=True)
    watch.reset()
    assert not watch.watching


def test_without_a_limit_nothing_is_stuck() -> None:
    clock = Clock()
    watch = StuckWatch(None, clock)
    watch.seen(1, busy=True)
    clock.now = 1e9
    assert not watch.seen(1, busy=True)


def test_a_page_of_metrics_is_read() -> None:
    page = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m"} 9.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+06
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:prompt_tokens_total{engine="0",model_name="m"} 7.0
"""
    assert read_load(page) == Load(7.0, 1_500_007.0)


def test_a_page_without_such_metrics_tells_nothing() -> None:
    assert read_load("process_cpu_seconds_total 1.0\n") is None
