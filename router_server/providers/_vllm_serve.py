"""A vLLM server that the router starts: the keys of ``serve``, and the command line that they mean.

Refuses to know how processes are run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
)

from router_server.core.engine import EngineLogFile, EnginePolicy, EngineSpec, WhileAway
from router_server.providers._settings import Seconds

_OURS: Final = ("--model", "--uds", "--host", "--port", "--api-key")
_SLEEP_MODE: Final = "--enable-sleep-mode"
_API_KEY: Final = "VLLM_API_KEY"
_SECRET_SIGNS: Final = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")


def _text(value: Any) -> Any:
    """Take a number for its text, as a shell does."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _variable(value: Any) -> str:
    text = _text(value)
    if not isinstance(text, str):
        raise ValueError("must be text; put it in quotes if it looks like something else")  # noqa: TRY004 - pydantic reports ValueError
    return text


def _not_ours(argument: str) -> str:
    name = argument.partition("=")[0]
    if name in _OURS:
        keys = {"--model": "write serve.model", "--api-key": "write api_key"}
        raise ValueError(f"is set by the router; {keys.get(name, 'remove it')}")
    return argument


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return Path(folder, path) if folder else path


def _program(path: str, info: ValidationInfo) -> str:
    # A bare name is looked up in PATH; what has a slash is a file, as in a shell.
    return str(_from_folder(Path(path), info)) if "/" in path else path


def _guarded(variables: dict[str, str | SecretStr]) -> dict[str, str | SecretStr]:
    """Hide the values that are secrets by their names; masking all would mask ``info`` out of every log."""
    return {
        name: SecretStr(value)
        if isinstance(value, str) and any(sign in name.upper() for sign in _SECRET_SIGNS)
        else value
        for name, value in variables.items()
    }


_Text = Annotated[str, BeforeValidator(_text)]
_Variable = Annotated[str | SecretStr, PlainValidator(_variable)]
_Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CheckSettings(_Section):
    """When a server that runs is given up."""

    interval: Seconds = Field(default=5.0, description="from one look at /health to the next")
    timeout: Seconds = Field(default=5.0, description="of one look")
    failures: _Count = Field(default=3, description="failed looks in a row after which it is restarted")


class BackoffSettings(_Section):
    """How long a restart waits."""

    first: Seconds = Field(default=1.0, description="before the first restart; doubles with each failure")
    max: Seconds = Field(
        default=60.0, description="up to this; once it was ready for so long, it starts over"
    )


class LogSettings(_Section):
    """Where the server's output is kept."""

    folder: Annotated[Path, AfterValidator(_from_folder)] | None = Field(
        default=None, description="null: modelrouter/ in $XDG_STATE_HOME or ~/.local/state"
    )
    max_bytes: _Count = Field(default=10_485_760, description="of one file")
    files: int = Field(default=3, ge=0, description="older files that are kept")


class ServeSettings(_Section):
    """A vLLM server as a child of the router."""

    model: str = Field(min_length=1, description="what vLLM is to load: a name or a folder")
    python: Annotated[str, AfterValidator(_program), Field(min_length=1)] | None = Field(
        default=None, description="the interpreter that has vLLM; null: the router's own"
    )
    module: str = Field(
        default="vllm.entrypoints.openai.api_server", min_length=1, description="what it runs, as python -m"
    )
    args: tuple[Annotated[_Text, AfterValidator(_not_ours)], ...] = Field(
        default=(), description="further arguments of vLLM's command line"
    )
    env: Annotated[dict[str, _Variable], AfterValidator(_guarded)] = Field(
        default_factory=dict, description="variables added to the router's own"
    )
    start_timeout: Seconds = Field(default=600.0, description="until it must be ready")
    stop_grace: Seconds = Field(default=15.0, description="from the request to end until it is killed")
    stuck_after: Seconds | None = Field(
        default=120.0, description="restart it when requests in it stand still for so long; null: never"
    )
    health_check: CheckSettings = Field(
        default_factory=CheckSettings, description="when a server that runs is given up"
    )
    backoff: BackoffSettings = Field(default_factory=BackoffSettings, description="before a restart")
    idle_sleep: Seconds | None = Field(
        default=None, description="without calls for so long it sleeps, or is stopped; null: never"
    )
    while_starting: WhileAway = Field(
        default=WhileAway.NEXT,
        description="what calls do before it is ready: next target, or queue within their deadline",
    )
    while_waking: WhileAway = Field(
        default=WhileAway.QUEUE, description="what calls do that find it asleep and wake it: queue or next"
    )
    log: LogSettings = Field(default_factory=LogSettings, description="where its output is kept")


def spec_of(serve: ServeSettings, api_key: SecretStr | None, socket: str) -> EngineSpec:
    """Return the process that ``serve`` asks for, listening on ``socket``."""
    sleeps = _SLEEP_MODE in serve.args
    env = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in serve.env.items()
    }
    if sleeps:
        # Without it vLLM has no /sleep; the socket is in a folder that nobody else can enter.
        env.setdefault("VLLM_SERVER_DEV_MODE", "1")
    if api_key and api_key.get_secret_value():
        env[_API_KEY] = api_key.get_secret_value()
    command = (serve.python or sys.executable, "-m", serve.module)
    return EngineSpec(
        title=f"vLLM with {serve.model}",
        command=(*command, "--model", serve.model, "--uds", socket, *serve.args),
        env=env,
        # The router's own key of another vLLM would shut the router out of this one.
        without=frozenset({_API_KEY}),
        socket=socket,
        sleeps=sleeps,
        policy=_policy(serve),
        log=EngineLogFile(serve.log.folder or _state_folder(), serve.log.max_bytes, serve.log.files),
        while_starting=serve.while_starting,
        while_waking=serve.while_waking,
    )


def _policy(serve: ServeSettings) -> EnginePolicy:
    return EnginePolicy(
        start_timeout=serve.start_timeout,
        stop_grace=serve.stop_grace,
        check_interval=serve.health_check.interval,
        check_timeout=serve.health_check.timeout,
        check_failures=serve.health_check.failures,
        stuck_after=serve.stuck_after,
        backoff=serve.backoff.first,
        backoff_max=serve.backoff.max,
        idle_sleep=serve.idle_sleep,
    )


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base, "modelrouter")
