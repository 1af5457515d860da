"""What a vLLM server says at ``/metrics``, as vLLM 0.32.0 writes it: the shape, with numbers of our own.

Names, labels, help texts and their order are those of vLLM's ``v1/metrics/loggers.py``; ``engine`` counts
the engines of one server with data parallelism.
"""

from __future__ import annotations

_LABELS = 'engine="{engine}",model_name="HuggingFaceTB/SmolLM2-135M-Instruct"'

_PAGE = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{{generation="0"}} 11463.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
{running}
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
{waiting}
# HELP vllm:num_requests_waiting_by_reason Number of waiting requests by reason.
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{{engine="0",model_name="m",reason="capacity"}} 900.0
vllm:num_requests_waiting_by_reason{{engine="0",model_name="m",reason="deferred"}} 900.0
# HELP vllm:engine_sleep_state Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means awake.
# TYPE vllm:engine_sleep_state gauge
vllm:engine_sleep_state{{engine="0",model_name="m",sleep_state="awake"}} 1.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
{cache}
# HELP vllm:prefix_cache_queries_total Prefix cache queries, in terms of number of queried tokens.
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{{engine="0",model_name="m"}} 2812.0
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{{engine="0",le="0.001",model_name="m"}} 0.0
vllm:time_to_first_token_seconds_count{{engine="0",model_name="m"}} 71.0
"""


def exposition(*engines: tuple[float, float, float]) -> bytes:
    """Return the page of a server whose engines have so many requests running, waiting, and cache in use."""
    return _PAGE.format(
        running=_series("num_requests_running", [engine[0] for engine in engines]),
        waiting=_series("num_requests_waiting", [engine[1] for engine in engines]),
        cache=_series("kv_cache_usage_perc", [engine[2] for engine in engines]),
    ).encode()


def _series(name: str, values: list[float]) -> str:
    return "\n".join(f"vllm:{name}{{{_LABELS.format(engine=i)}}} {float(v)}" for i, v in enumerate(values))
