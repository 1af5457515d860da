"""The configuration where there is no file: what the environment allows, and why.

Refuses to mix: the built-in model never stands behind a provider that was asked for, since its answers with
status OK in place of a failed large model's would be worse than an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from router_server.config import references
from router_server.config.problems import ConfigError, Problem
from router_server.config.source import Document
from router_server.config.tree import Config
from router_server.config.wording import findings

_CHAT_ONLY: Final = {"capabilities": {"embed": False}}
_EMBED_ONLY: Final = {"capabilities": {"chat": False}}

_BUILT_IN_CHAT: Final = "smollm2-135m-instruct"
_BUILT_IN_EMBED: Final = "wordllama-256"
_BUILT_IN: Final = {
    "kind": "embedded",
    # It answers four chats at once, on this machine's own cores: others wait here, in the right order.
    "max_concurrency": 4,
    "queue_timeout": "30s",
    "timeouts": {"first_token": "60s"},
}


@dataclass(frozen=True, slots=True)
class _Choice:
    """One provider that the environment asks for, and its models."""

    name: str
    because: str
    provider: Mapping[str, Any]
    chat: str | None = None
    embed: str | None = None

    def words(self, model: str) -> str:
        return f"{self.name} {model or '(the model it serves)'}, because {self.because} is set"


def default_config(env: Mapping[str, str]) -> tuple[Config, str]:
    """Return the configuration that ``env`` asks for, and in plain words what it is and why.

    Route ``chat`` is vLLM, then OpenAI, then Gemini, as far as they are there, else the built-in model;
    route ``embed`` is the first that embeds, alone, since vectors of two models are not comparable.

    Raises:
        ConfigError: a variable's value cannot be used.
    """
    choices = list(_chosen(env))
    if not choices:
        return _validated(_built_in(), {}), _BUILT_IN_WORDS
    chats = [choice for choice in choices if choice.chat is not None]
    embeds = [choice for choice in choices if choice.embed is not None][:1]
    config = _validated(_data(choices, chats, embeds), env)
    return config, _explanation(chats, embeds)


def _chosen(env: Mapping[str, str]) -> Iterable[_Choice]:
    if env.get("VLLM_BASE_URL"):
        yield from _vllm(env)
    if env.get("OPENAI_API_KEY"):
        yield _Choice(
            "openai",
            "OPENAI_API_KEY",
            {"kind": "openai", **_given(env, api_key="OPENAI_API_KEY", base_url="OPENAI_BASE_URL")},
            chat=env.get("OPENAI_MODEL") or "gpt-4o-mini",
            embed=env.get("OPENAI_EMBED_MODEL") or "text-embedding-3-small",
        )
    if env.get("GEMINI_API_KEY"):
        yield _Choice(
            "gemini",
            "GEMINI_API_KEY",
            {"kind": "gemini", **_given(env, api_key="GEMINI_API_KEY")},
            chat=env.get("GEMINI_MODEL") or "gemini-2.5-flash",
            embed=env.get("GEMINI_EMBED_MODEL") or "gemini-embedding-001",
        )


def _vllm(env: Mapping[str, str]) -> Iterable[_Choice]:
    given = {"kind": "vllm", **_given(env, base_url="VLLM_BASE_URL", api_key="VLLM_API_KEY")}
    # A vLLM server that is asked for no model answers with the one that it serves.
    yield _Choice("vllm", "VLLM_BASE_URL", given, chat=env.get("VLLM_MODEL", ""))
    if env.get("VLLM_EMBED_MODEL"):
        # One vLLM process serves one model, so embeddings have a server of their own.
        given = given | _given(env, base_url="VLLM_EMBED_BASE_URL")
        yield _Choice("vllm-embed", "VLLM_EMBED_MODEL", given, embed=env["VLLM_EMBED_MODEL"])


def _given(env: Mapping[str, str], **variables: str) -> dict[str, str]:
    return {key: env[variable] for key, variable in variables.items() if env.get(variable)}


def _data(choices: list[_Choice], chats: list[_Choice], embeds: list[_Choice]) -> dict[str, Any]:
    targets = {c.name: {"provider": c.name, "model": c.chat, **_CHAT_ONLY} for c in chats}
    targets |= {f"{c.name}-vectors": {"provider": c.name, "model": c.embed, **_EMBED_ONLY} for c in embeds}
    routes = {"chat": {"targets": [c.name for c in chats]}}
    if embeds:
        routes["embed"] = {"targets": [f"{embeds[0].name}-vectors"]}
    used = {c.name for c in (*chats, *embeds)}
    providers = {c.name: dict(c.provider) for c in choices if c.name in used}
    return {"providers": providers, "targets": targets, "routes": routes}


def _built_in() -> dict[str, Any]:
    return {
        "providers": {"built-in": dict(_BUILT_IN)},
        "targets": {
            "built-in": {"provider": "built-in", "model": _BUILT_IN_CHAT, **_CHAT_ONLY},
            "built-in-vectors": {"provider": "built-in", "model": _BUILT_IN_EMBED, **_EMBED_ONLY},
        },
        "routes": {"chat": {"targets": ["built-in"]}, "embed": {"targets": ["built-in-vectors"]}},
    }


def _validated(data: dict[str, Any], env: Mapping[str, str]) -> Config:
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        found = list(findings(error, Document(data)))
        raise ConfigError("environment", tuple(_of_variable(f.path, f.message, env) for f in found)) from None
    names = {section: frozenset(data[section]) for section in ("providers", "targets", "routes")}
    found = list(references.check(config, names))
    if found:
        raise ConfigError("environment", tuple(_of_variable(f.path, f.message, env) for f in found))
    return config


def _of_variable(path: tuple[str | int, ...], message: str, env: Mapping[str, str]) -> Problem:
    """Blame the variable: whoever has no file has never seen the key."""
    provider, key = str(path[1]), str(path[-1])
    owners = (provider.replace("-", "_"), provider.partition("-")[0])
    names = [f"{owner}_{key}".upper() for owner in owners]
    return Problem(0, next((name for name in names if env.get(name)), names[-1]), message)


def _explanation(chats: list[_Choice], embeds: list[_Choice]) -> str:
    lines = ["There is no configuration file, so the environment decides."]
    lines.append("Route chat: " + "; then ".join(c.words(c.chat or "") for c in chats) + ".")
    if embeds:
        alone = "alone, since vectors of two models are not comparable"
        lines.append(f"Route embed: {embeds[0].words(embeds[0].embed or '')}; {alone}.")
    else:
        lines.append(
            "No route embeds: a vLLM server of a chat model does not. Set VLLM_EMBED_MODEL and "
            "VLLM_EMBED_BASE_URL, OPENAI_API_KEY or GEMINI_API_KEY for one that does."
        )
    return "\n".join(lines)


_BUILT_IN_WORDS: Final = (
    "There is no configuration file, and none of VLLM_BASE_URL, OPENAI_API_KEY and GEMINI_API_KEY is set.\n"
    f"Route chat: the built-in {_BUILT_IN_CHAT}, a small model for demonstration.\n"
    f"Route embed: the built-in {_BUILT_IN_EMBED}."
)
