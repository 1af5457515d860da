"""The `modelrouter` command as a shell sees it: output, notices, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
import pytest

from modelrouter import system, user
from modelrouter.v1 import chat_pb2
from tests.client.scripted import (
    MODELS,
    OTHER_ROUTE,
    Fail,
    Hang,
    ScriptedRouter,
    delta,
    embedded,
    finished,
    reset,
    rich,
    spoken,
    started,
)

COMMAND = [sys.executable, "-m", "modelrouter"]
MATRIX = np.linspace(-1, 1, 16, dtype="<f4").tobytes()


def environment(target: str, **variables: str) -> dict[str, str]:
    # PYTHONUNBUFFERED would hide a forgotten flush.
    unwanted = ("MODELROUTER_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "MODELROUTER_TARGET": target, **variables}


def run(
    target: str, *arguments: str, stdin: str = "", variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, *arguments],
        input=stdin,
        env=environment(target, **(variables or {})),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_chat_prints_the_answer(router: ScriptedRouter) -> None:
    router.play(spoken("Par", "is."))

    done = run(router.target, "chat", "What is the capital of France?")

    assert (done.returncode, done.stdout, done.stderr) == (0, "Paris.\n", "")
    assert router.calls[0].request.messages == [user("What is the capital of France?")]
    assert router.calls[0].request.model == "chat"


def test_chat_prints_each_piece_as_it_comes(router: ScriptedRouter) -> None:
    router.play([started(), delta("Par"), Hang()])

    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "chat", "?"], env=environment(router.target), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"Par"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stdout.read() == b"\n"

    assert router.calls[0].over.wait(10)


def test_chat_takes_its_options(router: ScriptedRouter) -> None:
    router.play(spoken("!"))

    done = run(
        router.target,
        *("chat", "two", "words", "--model", "mine", "--system", "Be brief."),
        *("--temperature", "0", "--max-tokens", "5", "--timeout", "50", "--api-key", "k"),
    )

    assert done.returncode == 0
    call = router.calls[0]
    assert call.request.model == "mine"
    assert call.request.messages == [system("Be brief."), user("two words")]
    assert call.request.generation == chat_pb2.GenerationConfig(temperature=0, max_output_tokens=5)
    assert call.time_remaining == pytest.approx(50, rel=0.1)
    assert call.metadata["x-api-key"] == "k"


@pytest.mark.parametrize("arguments", [("chat",), ("chat", "-")])
def test_chat_reads_the_question_from_stdin(router: ScriptedRouter, arguments: Sequence[str]) -> None:
    router.play(spoken("!"))

    assert run(router.target, *arguments, stdin="From a\npipe.\n").returncode == 0

    assert router.calls[0].request.messages == [user("From a\npipe.\n")]


def test_options_stand_before_or_after_the_command(router: ScriptedRouter) -> None:
    router.play(spoken("!"))
    options = ["--target", router.target, "--model", "mine", "--timeout", "50", "--json"]

    before = run("127.0.0.1:1", *options, "chat", "?")
    after = run("127.0.0.1:1", "chat", "?", *options)

    assert before.returncode == after.returncode == 0
    assert before.stdout == after.stdout
    assert [call.request.model for call in router.calls] == ["mine", "mine"]


def test_the_api_key_comes_from_the_environment(router: ScriptedRouter) -> None:
    router.play(spoken("!"))

    assert run(router.target, "chat", "?", variables={"MODELROUTER_API_KEY": "k2"}).returncode == 0

    assert router.calls[0].metadata["x-api-key"] == "k2"


def test_chat_as_json_is_the_whole_answer_after_a_restart(router: ScriptedRouter) -> None:
    router.play([started(), delta("Lond"), reset(resumed=False), delta("Paris 🗼"), finished(OTHER_ROUTE)])

    done = run(router.target, "chat", "?", "--json")

    told = json.loads(done.stdout)
    assert (told["text"], told["finish_reason"], told["model"]) == ("Paris 🗼", "stop", "chat")
    assert told["usage"]["input_tokens"] == 7
    assert told["route"]["target"] == "cloud/big"
    assert done.stdout.count("\n") == 1


def test_counts_within_attempts_are_numbers_too(router: ScriptedRouter) -> None:
    route = OTHER_ROUTE.__class__(attempts=[{"target": "a", "usage": {"output_tokens": 5}}])
    router.play([started(), finished(route)])

    told = json.loads(run(router.target, "chat", "?", "--json").stdout)

    assert told["route"]["attempts"][0]["usage"]["output_tokens"] == 5


def test_a_pipe_gets_no_text_twice(router: ScriptedRouter) -> None:
    broken = rich(grpc.StatusCode.ABORTED, "STREAM_INTERRUPTED", "the upstream went away")
    router.play([started(), delta("Par"), broken])

    done = run(router.target, "chat", "?")

    assert (done.returncode, done.stdout) == (6, "Par\n")
    assert done.stderr == "modelrouter: the upstream went away.\n"
    assert router.calls[0].request.routing.stream_recovery == 1


def test_a_terminal_is_told_that_the_answer_starts_over(router: ScriptedRouter) -> None:
    router.play([started(), delta("Lond"), reset(resumed=False), delta("Paris."), finished()])
    leader, follower = pty.openpty()

    done = subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, "chat", "?"],
        env=environment(router.target),
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=subprocess.PIPE,
        check=False,
        timeout=30,
    )
    os.close(follower)
    shown = os.read(leader, 1000)
    os.close(leader)

    assert done.returncode == 0
    assert shown == b"Lond\r\nParis.\r\n"
    assert done.stderr == b"[the answer broke off (timeout); cloud/big starts it over]\n"


@pytest.mark.parametrize(
    ("reason", "notice"),
    [
        (chat_pb2.FINISH_REASON_LENGTH, "--max-tokens"),
        (chat_pb2.FINISH_REASON_CONTENT_FILTER, "content filter"),
    ],
)
def test_an_answer_that_was_cut_off_is_said_to_be(
    router: ScriptedRouter, reason: chat_pb2.FinishReason, notice: str
) -> None:
    end = finished()
    end.finished.finish_reason = reason
    router.play([started(), delta("Par"), end])

    done = run(router.target, "chat", "?")

    assert (done.returncode, done.stdout) == (0, "Par\n")
    assert notice in done.stderr


def test_a_refusal_is_shown(router: ScriptedRouter) -> None:
    router.play([started(), delta(refusal="Not that."), finished()])

    done = run(router.target, "chat", "?")

    assert (done.returncode, done.stdout) == (0, "")
    assert "Not that." in done.stderr


def test_embed_prints_the_shape_and_the_first_values(router: ScriptedRouter) -> None:
    router.play([embedded(2, 8, MATRIX)])

    done = run(router.target, "embed", "a cat", "a kitten " + "that purrs " * 9)

    assert done.stdout == (
        "2 x 8 float32 from local/tiny\n"
        "a cat                     -1.0000  -0.8667  -0.7333  -0.6000 ...\n"
        "a kitten that purrs t...   0.0667   0.2000   0.3333   0.4667 ...\n"
    )


def test_embed_as_json_has_every_value_exactly(router: ScriptedRouter) -> None:
    router.play([embedded(2, 8, MATRIX)])

    told = json.loads(run(router.target, "embed", "a cat", "a kitten", "--json").stdout)

    assert np.array(told["vectors"], dtype="<f4").tobytes() == MATRIX
    assert told["dimensions"] == 8
    assert told["usage"]["input_tokens"] == 4


def test_embed_reads_lines(router: ScriptedRouter) -> None:
    router.play([embedded(2, 8, MATRIX)])

    assert run(router.target, "embed", stdin="a cat\n\na kitten\n").returncode == 0

    assert [each.text for each in router.calls[0].request.inputs] == ["a cat", "a kitten"]


def test_models_lists_the_routes(router: ScriptedRouter) -> None:
    router.play([MODELS])

    assert run(router.target, "models").stdout == (
        "ROUTE  OPERATIONS  AVAILABLE  TARGETS\n"
        "chat   chat        yes        local/tiny, cloud/big\n"
        "embed  embed       no         local/words\n"
    )


def test_models_as_json(router: ScriptedRouter) -> None:
    router.play([MODELS])

    told = json.loads(run(router.target, "models", "--json").stdout)["models"]

    assert [each["name"] for each in told] == ["chat", "embed"]
    assert told[0]["operations"] == ["OPERATION_CHAT"]
    assert told[1]["available"] is False


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (rich(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "two bad fields"), 2),
        (rich(grpc.StatusCode.FAILED_PRECONDITION, "CAPABILITY_UNSUPPORTED", "no images"), 2),
        (rich(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "no route x"), 4),
        (rich(grpc.StatusCode.UNAVAILABLE, "ALL_TARGETS_FAILED", "all failed", pushback_ms=-1), 5),
        (rich(grpc.StatusCode.RESOURCE_EXHAUSTED, "ROUTER_SATURATED", "full", pushback_ms=-1), 5),
        (rich(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "no token in time"), 7),
        (rich(grpc.StatusCode.FAILED_PRECONDITION, "CONTENT_FILTERED", "refused"), 1),
        (rich(grpc.StatusCode.INTERNAL, "INTERNAL", "the router failed"), 1),
    ],
)
def test_exit_codes_tell_scripts_what_happened(router: ScriptedRouter, failure: Fail, code: int) -> None:
    router.play([failure])

    done = run(router.target, "chat", "?")

    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"modelrouter: {failure.message}.\n"


def test_no_server_is_said_with_what_to_do() -> None:
    done = run("127.0.0.1:1", "models")

    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr
    assert "`make run` or `router-server serve`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "COMMAND"),
        (("chat",), "there is no question"),
        (("embed",), "there is nothing to embed"),
        (("models", "--model", "x"), "leave --model away"),
        (("chat", "?", "--timeout", "0"), "not a positive number"),
        (("chat", "?", "--timeout", "soon"), "invalid"),
        (("chat", "?", "--target", "router"), "names no port"),
        (("chat", "?", "--target", "router:1", "--api-key", "sk-x"), "would travel unencrypted"),
        (("chat", "?", "--ca", "no-such-file.pem"), "no-such-file.pem"),
        (("chat", "?", "--max-tokens", "99999999999"), "max_output_tokens"),
    ],
)
def test_wrong_usage_is_explained(arguments: Sequence[str], complaint: str) -> None:
    done = run("127.0.0.1:1", *arguments)

    assert done.returncode == 2
    assert complaint in done.stderr
    assert "sk-x" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(router: ScriptedRouter) -> None:
    router.play([started(), delta("first\n"), *(delta("x" * 65536) for _ in range(20)), finished()])

    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "chat", "?"],
        env=environment(router.target),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"first\n"
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""


def test_the_version_and_the_exit_codes_are_told() -> None:
    assert run("127.0.0.1:1", "--version").stdout.startswith("modelrouter ")
    assert "  130  interrupted by Ctrl-C" in run("127.0.0.1:1", "--help").stdout
