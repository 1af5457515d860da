import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StreamRecovery(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STREAM_RECOVERY_UNSPECIFIED: _ClassVar[StreamRecovery]
    STREAM_RECOVERY_NONE: _ClassVar[StreamRecovery]
    STREAM_RECOVERY_RESTART: _ClassVar[StreamRecovery]
    STREAM_RECOVERY_RESUME: _ClassVar[StreamRecovery]
STREAM_RECOVERY_UNSPECIFIED: StreamRecovery
STREAM_RECOVERY_NONE: StreamRecovery
STREAM_RECOVERY_RESTART: StreamRecovery
STREAM_RECOVERY_RESUME: StreamRecovery

class Usage(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "reasoning_output_tokens", "cost_nano_usd", "estimated")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COST_NANO_USD_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    reasoning_output_tokens: int
    cost_nano_usd: int
    estimated: bool
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., cache_read_input_tokens: _Optional[int] = ..., cache_write_input_tokens: _Optional[int] = ..., reasoning_output_tokens: _Optional[int] = ..., cost_nano_usd: _Optional[int] = ..., estimated: _Optional[bool] = ...) -> None: ...

class RouteInfo(_message.Message):
    __slots__ = ("route", "target", "provider", "upstream_model", "attempts", "cache_hit", "reported_model")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_MODEL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_HIT_FIELD_NUMBER: _ClassVar[int]
    REPORTED_MODEL_FIELD_NUMBER: _ClassVar[int]
    route: str
    target: str
    provider: str
    upstream_model: str
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    cache_hit: bool
    reported_model: str
    def __init__(self, route: _Optional[str] = ..., target: _Optional[str] = ..., provider: _Optional[str] = ..., upstream_model: _Optional[str] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., cache_hit: _Optional[bool] = ..., reported_model: _Optional[str] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("target", "provider", "outcome", "duration", "time_to_first_token", "error_reason", "usage")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[Attempt.Outcome]
        OUTCOME_OK: _ClassVar[Attempt.Outcome]
        OUTCOME_INVALID_REQUEST: _ClassVar[Attempt.Outcome]
        OUTCOME_CONTEXT_LENGTH: _ClassVar[Attempt.Outcome]
        OUTCOME_CONTENT_FILTER: _ClassVar[Attempt.Outcome]
        OUTCOME_AUTH: _ClassVar[Attempt.Outcome]
        OUTCOME_MODEL_MISSING: _ClassVar[Attempt.Outcome]
        OUTCOME_RATE_LIMITED: _ClassVar[Attempt.Outcome]
        OUTCOME_UNAVAILABLE: _ClassVar[Attempt.Outcome]
        OUTCOME_TIMEOUT: _ClassVar[Attempt.Outcome]
        OUTCOME_MALFORMED: _ClassVar[Attempt.Outcome]
        OUTCOME_SATURATED: _ClassVar[Attempt.Outcome]
        OUTCOME_CIRCUIT_OPEN: _ClassVar[Attempt.Outcome]
        OUTCOME_CANCELLED: _ClassVar[Attempt.Outcome]
        OUTCOME_BUDGET: _ClassVar[Attempt.Outcome]
    OUTCOME_UNSPECIFIED: Attempt.Outcome
    OUTCOME_OK: Attempt.Outcome
    OUTCOME_INVALID_REQUEST: Attempt.Outcome
    OUTCOME_CONTEXT_LENGTH: Attempt.Outcome
    OUTCOME_CONTENT_FILTER: Attempt.Outcome
    OUTCOME_AUTH: Attempt.Outcome
    OUTCOME_MODEL_MISSING: Attempt.Outcome
    OUTCOME_RATE_LIMITED: Attempt.Outcome
    OUTCOME_UNAVAILABLE: Attempt.Outcome
    OUTCOME_TIMEOUT: Attempt.Outcome
    OUTCOME_MALFORMED: Attempt.Outcome
    OUTCOME_SATURATED: Attempt.Outcome
    OUTCOME_CIRCUIT_OPEN: Attempt.Outcome
    OUTCOME_CANCELLED: Attempt.Outcome
    OUTCOME_BUDGET: Attempt.Outcome
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    target: str
    provider: str
    outcome: Attempt.Outcome
    duration: _duration_pb2.Duration
    time_to_first_token: _duration_pb2.Duration
    error_reason: str
    usage: Usage
    def __init__(self, target: _Optional[str] = ..., provider: _Optional[str] = ..., outcome: _Optional[_Union[Attempt.Outcome, str]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., error_reason: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class RoutingOptions(_message.Message):
    __slots__ = ("allowed_targets", "allow_failover", "first_token_timeout", "stream_recovery", "priority", "coalesce_window", "allow_cache", "heartbeat_interval")
    ALLOWED_TARGETS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FAILOVER_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    STREAM_RECOVERY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    COALESCE_WINDOW_FIELD_NUMBER: _ClassVar[int]
    ALLOW_CACHE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    allowed_targets: _containers.RepeatedScalarFieldContainer[str]
    allow_failover: bool
    first_token_timeout: _duration_pb2.Duration
    stream_recovery: StreamRecovery
    priority: int
    coalesce_window: _duration_pb2.Duration
    allow_cache: bool
    heartbeat_interval: _duration_pb2.Duration
    def __init__(self, allowed_targets: _Optional[_Iterable[str]] = ..., allow_failover: _Optional[bool] = ..., first_token_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stream_recovery: _Optional[_Union[StreamRecovery, str]] = ..., priority: _Optional[int] = ..., coalesce_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., allow_cache: _Optional[bool] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
