"""Every example of docs/client-python.md, run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from modelrouter.v1 import chat_pb2
from tests.client.scripted import (
    MODELS,
    Fail,
    Script,
    ScriptedRouter,
    answer,
    embedded,
    rich,
    running,
    spoken,
)

PAGE = Path(__file__).parents[2] / "docs" / "client-python.md"


class Obliging(ScriptedRouter):
    """Answers whatever the page asks."""

    def script(self, request: Any, *, streamed: bool) -> Script:
        if streamed:
            return spoken("Once upon ", "a time.")
        match request.DESCRIPTOR.name:
            case "ListModelsRequest":
                return [MODELS]
            case "EmbedRequest":
                return [embedded(2, 3, np.ones(6, "<f4").tobytes())]
        return [_refusal()] if request.model == "no-such-route" else [_reply(request)]


def _reply(request: chat_pb2.ChatRequest) -> chat_pb2.ChatResponse:
    reply = answer("Paris.")
    if request.tools:
        reply.message.content.add(tool_call={"id": "c", "name": "weather", "arguments_json": "{}"})
    return reply


def _refusal() -> Fail:
    return rich(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "there is no route no-such-route")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)


def test_the_python_examples_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    with running(Obliging()) as router:
        monkeypatch.setenv("MODELROUTER_TARGET", router.target)
        for block in blocks("python"):
            exec(compile(block, PAGE.name, "exec"), names)  # noqa: S102 - our own examples
        names["client"].close()

    shown = capsys.readouterr().out
    assert shown.startswith("Paris.\nParis. stop 3 local/tiny\nOnce upon a time.")
    assert "weather {}" in shown
    assert shown.endswith("there is no route no-such-route.\n")
    assert "".join(names["page"]) == names["story"].text == "Once upon a time."
    assert names["vectors"].shape == (2, 3)


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_the_shell_examples_run(line: str) -> None:
    with running(Obliging()) as router:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(  # noqa: S602 - our own examples
            line,
            shell=True,
            env={**os.environ, "PATH": path, "MODELROUTER_TARGET": router.target},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
