"""The configuration without a file: every combination of what the environment may hold."""

from __future__ import annotations

from itertools import product

import pytest

from router_server.config import ConfigError, default_config

VLLM = {"VLLM_BASE_URL": "http://127.0.0.1:8000/v1"}
VLLM_EMBEDS = {"VLLM_EMBED_MODEL": "bge", "VLLM_EMBED_BASE_URL": "http://127.0.0.1:8001/v1"}
OPENAI = {"OPENAI_API_KEY": "sk-openai-secret"}
GEMINI = {"GEMINI_API_KEY": "gemini-secret"}


@pytest.mark.parametrize(("vllm", "embeds", "openai", "gemini"), list(product([False, True], repeat=4)))
def test_each_combination(vllm: bool, embeds: bool, openai: bool, gemini: bool) -> None:
    given = [(vllm, VLLM), (embeds, VLLM_EMBEDS), (openai, OPENAI), (gemini, GEMINI)]
    env = {key: value for is_set, part in given if is_set for key, value in part.items()}
    config, explanation = default_config(env)

    asked = [name for name, is_set in [("vllm", vllm), ("openai", openai), ("gemini", gemini)] if is_set]
    embedding = [
        name
        for name, is_set in [("vllm-embed", vllm and embeds), ("openai", openai), ("gemini", gemini)]
        if is_set
    ]
    chat = asked or ["built-in"]
    embed = embedding[:1] if asked else ["built-in"]

    assert list(config.routes["chat"].order) == chat
    assert [config.targets[name].provider for name in chat] == chat
    found = (
        [config.targets[name].provider for name in config.routes["embed"].order]
        if "embed" in config.routes
        else []
    )
    assert found == embed
    assert set(config.providers) == {*chat, *embed}
    assert all(
        variable in explanation
        for variable in ("VLLM_BASE_URL", "OPENAI_API_KEY", "GEMINI_API_KEY")
        if variable in env
    )
    assert "secret" not in explanation + repr(config)


def test_nothing_set_means_the_built_in_model_on_this_machine_alone() -> None:
    config, explanation = default_config({"OPENAI_API_KEY": "", "VLLM_BASE_URL": ""})
    assert (config.server.listen, config.server.http_listen) == ("127.0.0.1:50051", "127.0.0.1:8080")
    assert {t.model for t in config.targets.values()} == {"smollm2-135m-instruct", "wordllama-256"}
    assert "none of VLLM_BASE_URL, OPENAI_API_KEY and GEMINI_API_KEY is set" in explanation


def test_models_by_default_and_by_variable() -> None:
    assert _models(OPENAI | GEMINI | VLLM) == {
        "vllm": "",
        "openai": "gpt-4o-mini",
        "gemini": "gemini-2.5-flash",
        "openai-vectors": "text-embedding-3-small",
    }
    named = {"VLLM_MODEL": "qwen", "OPENAI_MODEL": "gpt-5", "GEMINI_EMBED_MODEL": "ge", "GEMINI_MODEL": "g"}
    assert _models(VLLM | OPENAI | named) == {
        "vllm": "qwen",
        "openai": "gpt-5",
        "openai-vectors": "text-embedding-3-small",
    }
    assert _models(GEMINI | named) == {"gemini": "g", "gemini-vectors": "ge"}


def _models(env: dict[str, str]) -> dict[str, str]:
    return {name: target.model for name, target in default_config(env)[0].targets.items()}


def test_vllm_embeds_at_the_address_of_chat_unless_it_has_its_own() -> None:
    config, _ = default_config(VLLM | {"VLLM_EMBED_MODEL": "bge"})
    assert config.providers["vllm-embed"].settings.base_url == VLLM["VLLM_BASE_URL"]
    config, _ = default_config(VLLM | VLLM_EMBEDS)
    assert config.providers["vllm-embed"].settings.base_url == VLLM_EMBEDS["VLLM_EMBED_BASE_URL"]


def test_chat_targets_do_not_embed_and_embedding_targets_do_not_chat() -> None:
    config, _ = default_config(OPENAI)
    assert "embed" not in config.capabilities("openai")
    assert "chat" in config.capabilities("openai")
    assert "chat" not in config.capabilities("openai-vectors")
    assert "embed" in config.capabilities("openai-vectors")


def test_without_an_embedding_model_it_says_how_to_get_one() -> None:
    config, explanation = default_config(VLLM)
    assert "embed" not in config.routes
    assert "Set VLLM_EMBED_MODEL" in explanation


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"VLLM_BASE_URL": "localhost:8000"}, "VLLM_BASE_URL"),
        (VLLM | {"VLLM_API_KEY": "käse-key"}, "VLLM_API_KEY"),
        (VLLM | VLLM_EMBEDS | {"VLLM_EMBED_BASE_URL": "ftp://x"}, "VLLM_EMBED_BASE_URL"),
        ({"OPENAI_API_KEY": "käse-key"}, "OPENAI_API_KEY"),
        (OPENAI | {"OPENAI_BASE_URL": "unix:///x"}, "OPENAI_BASE_URL"),
        ({"GEMINI_API_KEY": "käse-key"}, "GEMINI_API_KEY"),
    ],
)
def test_a_value_that_cannot_be_used_blames_its_variable(env: dict[str, str], variable: str) -> None:
    with pytest.raises(ConfigError) as raised:
        default_config(env)
    (problem,) = raised.value.problems
    assert problem.key == variable
    assert str(raised.value).startswith(f"environment: {variable}: ")
    assert "käse" not in str(raised.value)
