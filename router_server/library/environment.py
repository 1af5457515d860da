"""From a few variables to a configuration: one route, ``default``, over OpenAI-compatible endpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, get_args

from router_server.config import Config, ConfigError, Problem, read
from router_server.config.routes import StrategyName
from router_server.config.tree import TimeoutsConfig
from router_server.core.duration import parse_duration

ROUTE: Final = "default"

_ORIGIN: Final = "environment"
_NO_KEY: Final = "none"
_OFF: Final = frozenset({"off", "false", "0", "no"})
_ON: Final = frozenset({"on", "true", "1", "yes"})


def config_from(env: Mapping[str, str]) -> Config:
    """Return what ``LLM_ENDPOINTS`` and the other variables describe; docs/library.md has their format.

    Raises:
        ConfigError: a variable is missing or says what makes no sense.
    """
    endpoints = _listed(env, "LLM_ENDPOINTS")
    if not endpoints:
        raise _wrong("LLM_ENDPOINTS", "is not set; write model@url, several separated by commas")
    keys = _listed(env, "LLM_API_KEYS") or [""]
    if len(keys) not in {1, len(endpoints)}:
        raise _wrong(
            "LLM_API_KEYS",
            f"has {len(keys)} keys for {len(endpoints)} endpoints; give one for all, or one for each",
        )
    keys = keys * len(endpoints) if len(keys) == 1 else keys
    settings, strategy = _settings(env), _strategy(env)
    providers, targets = {}, {}
    for number, (endpoint, key) in enumerate(zip(endpoints, keys, strict=True), 1):
        model, place = _split(endpoint)
        if not model or not place:
            raise _wrong("LLM_ENDPOINTS", f"entry {number} is not model@url")
        name = f"endpoint-{number}"
        providers[name] = {**_provider(place, key), **settings}
        targets[name] = {"provider": name, "model": model}
    routes = {ROUTE: {"targets": list(targets), "strategy": strategy}}
    # JSON is YAML; what looks like a variable in a key is none.
    text = json.dumps({"providers": providers, "targets": targets, "routes": routes}).replace("${", "$${")
    try:
        return read(text, {}, origin=_ORIGIN)
    except ConfigError as error:
        raise ConfigError(_ORIGIN, tuple(map(_in_variables, error.problems))) from None


def _split(endpoint: str) -> tuple[str, str]:
    """Return model and place; the names of models have an @ of their own, and so may an address."""
    before, colon, behind = endpoint.partition("://")
    model, _, place = before.rpartition("@")
    return model, f"{place}{colon}{behind}"


def _provider(place: str, key: str) -> dict[str, Any]:
    """Return what is particular to one endpoint; ``place`` is a url, or a kind that needs none."""
    match place:
        case "litellm":
            return {"kind": place, "api_key": "" if key == _NO_KEY else key}
        case "sentence-transformers":
            return {"kind": place}
        case _:
            return {"kind": "openai", "base_url": place, "api_key": key or _NO_KEY}


def _settings(env: Mapping[str, str]) -> dict[str, Any]:
    """Return what all endpoints have in common."""
    settings: dict[str, Any] = {}
    check = env.get("LLM_HEALTH_CHECK", "").strip().lower()
    if check in _OFF:
        settings["health_check"] = None
    elif check and check not in _ON:
        settings["health_check"] = {"interval": _seconds("LLM_HEALTH_CHECK", check)}
    if timeout := env.get("LLM_TIMEOUT", "").strip():
        seconds = _seconds("LLM_TIMEOUT", timeout)
        usual = TimeoutsConfig()
        # Who waits no longer for a whole answer waits no longer for a part of it either.
        parts = ("connect", "first_token", "first_token_reasoning", "idle")
        settings["timeouts"] = {"unary": seconds} | {p: min(seconds, getattr(usual, p)) for p in parts}
    return settings


def _seconds(name: str, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise _wrong(name, "is not a duration; write 500ms, 5s, 2m or 1h30m")
    return seconds


def _strategy(env: Mapping[str, str]) -> str:
    strategy = env.get("LLM_STRATEGY", "").strip() or "ordered"
    if strategy not in get_args(StrategyName):
        raise _wrong("LLM_STRATEGY", f"is none of {', '.join(get_args(StrategyName))}")
    return strategy


def _in_variables(problem: Problem) -> Problem:
    """Return the problem where its author has written it: the file that it speaks of was never seen."""
    section, _, rest = problem.key.partition(".endpoint-")
    number, _, key = rest.partition(".")
    if section not in {"providers", "targets"} or not number.isdigit():
        return Problem(0, problem.key, problem.message)
    variable = "LLM_API_KEYS" if key == "api_key" else "LLM_ENDPOINTS"
    return Problem(0, variable, f"entry {number}, {key}: {problem.message}")


def _listed(env: Mapping[str, str], name: str) -> list[str]:
    return [entry.strip() for entry in env.get(name, "").split(",") if entry.strip()]


def _wrong(name: str, message: str) -> ConfigError:
    return ConfigError(_ORIGIN, (Problem(0, name, message),))
