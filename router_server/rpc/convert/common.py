"""What chat and embed requests have in common: routing, labels, provider options, names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelrouter.v1 import common_pb2 as pb
from router_server.core.options import refused_options
from router_server.core.types import Json, Routing, StreamRecovery
from router_server.rpc.convert.fields import Fields, quote

_LONGEST_NAME = 256
_MOST_TARGETS = 64
_MOST_LABELS = 32
_MOST_OPTIONS = 64
_LONGEST_LABEL_KEY = 64
_LONGEST_LABEL_VALUE = 256
_HOUR = 3_600.0
_LONGEST_WINDOW = 1.0
"""Seconds; a window longer than this is no longer a stream."""
_SHORTEST_HEARTBEAT = 0.1

_RECOVERIES: Mapping[int, StreamRecovery] = {
    pb.STREAM_RECOVERY_NONE: StreamRecovery.NONE,
    pb.STREAM_RECOVERY_RESTART: StreamRecovery.RESTART,
    pb.STREAM_RECOVERY_RESUME: StreamRecovery.RESUME,
}


NO_WISH: Final = Routing()
"""The routing of a request that says nothing of it."""


def read_model(model: str, fields: Fields) -> str:
    """Return the name of the route, or of the target."""
    if not model:
        fields.wrong("model", "name a route; ListModels tells which there are")
        return model
    return fields.text("model", model, most=_LONGEST_NAME)


def read_name(field: str, name: str, fields: Fields) -> str:
    """Return an optional name of the caller's own: a user, an idempotency key."""
    return name and fields.text(field, name, most=_LONGEST_NAME)


def read_routing(routing: pb.RoutingOptions, fields: Fields) -> Routing:
    """Return what the caller asks of the router itself."""
    return Routing(
        allowed_targets=_targets(routing, fields),
        allow_failover=routing.allow_failover if routing.HasField("allow_failover") else True,
        first_token_timeout=_optional_seconds(routing, "first_token_timeout", 0.001, _HOUR, fields),
        stream_recovery=fields.choice(
            "routing.stream_recovery", routing.stream_recovery, _RECOVERIES, pb.StreamRecovery
        ),
        priority=routing.priority,
        coalesce_window=_optional_seconds(routing, "coalesce_window", 0.0, _LONGEST_WINDOW, fields) or 0.0,
        allow_cache=routing.allow_cache if routing.HasField("allow_cache") else None,
        heartbeat_interval=_optional_seconds(
            routing, "heartbeat_interval", _SHORTEST_HEARTBEAT, _HOUR, fields
        ),
    )


def read_labels(labels: Mapping[str, str], fields: Fields) -> Mapping[str, str]:
    """Return the caller's labels."""
    if not labels:
        return {}
    if len(labels) > _MOST_LABELS:
        fields.wrong("labels", f"has {len(labels)} entries; {_MOST_LABELS} are allowed")
        return {}
    for key, value in labels.items():
        if not 0 < len(key) <= _LONGEST_LABEL_KEY:
            fields.wrong(
                "labels", f"the key {quote(key)} must have between 1 and {_LONGEST_LABEL_KEY} characters"
            )
        fields.text(f"labels[{quote(key)}]", value, most=_LONGEST_LABEL_VALUE)
    return dict(labels)


def read_provider_options(options: Mapping[str, str], fields: Fields) -> Mapping[str, Json]:
    """Return each provider's options, parsed; those that the router sets itself are refused."""
    parsed: dict[str, Json] = {}
    if not options:
        return parsed
    if len(options) > _MOST_OPTIONS:
        fields.wrong("provider_options_json", f"has {len(options)} entries; {_MOST_OPTIONS} are allowed")
        return parsed
    for provider, text in options.items():
        field = f"provider_options_json[{quote(provider)}]"
        if not provider:
            fields.wrong(field, "the key must be a provider's name or kind")
        parsed[provider] = fields.json_object(field, text)
        for option in refused_options(parsed[provider]):
            fields.wrong(
                f"{field}.{option}", "is set by the router; leave it out, and use the request's own fields"
            )
    return parsed


def _targets(routing: pb.RoutingOptions, fields: Fields) -> tuple[str, ...]:
    targets = tuple(routing.allowed_targets)
    if len(targets) > _MOST_TARGETS:
        fields.wrong("routing.allowed_targets", f"has {len(targets)} entries; {_MOST_TARGETS} are allowed")
        return ()
    for index, target in enumerate(targets):
        field = f"routing.allowed_targets[{index}]"
        fields.text(field, target, most=_LONGEST_NAME, required=True)
        if target in targets[:index]:
            fields.wrong(field, f"names {quote(target)} a second time; name each target once")
    return targets


def _optional_seconds(
    routing: pb.RoutingOptions, name: str, least: float, most: float, fields: Fields
) -> float | None:
    if not routing.HasField(name):
        return None
    return fields.seconds(f"routing.{name}", getattr(routing, name), least=least, most=most)
