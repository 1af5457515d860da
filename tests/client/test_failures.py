"""Failures as exceptions: every reason of the router as it really sends it, and what has no reason."""

from __future__ import annotations

import pickle

import grpc
import pytest
from google.rpc import error_details_pb2

from modelrouter import errors
from modelrouter.errors import BY_CODE, BY_REASON, FailedAttempt, ModelRouterError, Violation
from modelrouter.status import from_rpc_error
from modelrouter.v1.chat_pb2 import ChatRequest
from modelrouter.v1.service_pb2_grpc import ModelRouterServiceStub
from router_server.core.errors import AttemptSummary, Outcome, Phase, Reason, RouterError
from router_server.core.errors import Violation as RouterViolation
from router_server.core.types import Usage
from router_server.rpc.status import status_of
from tests.client.scripted import Fail, ScriptedRouter, retry_info, rich
from tests.client.shells import Shell, opened


def sent(error: RouterError, *, remaining: float | None = None) -> Fail:
    """Return the step that fails as the router fails."""
    status = status_of(error, request_id="req-1", remaining=remaining)
    return Fail(status.code, status.message, status.trailing_metadata)


async def raised(router: ScriptedRouter, shell: Shell, step: Fail) -> ModelRouterError:
    router.play([step])
    with pytest.raises(ModelRouterError) as caught:
        await shell.chat("?")
    return caught.value


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_has_its_class(router: ScriptedRouter, shell: Shell, reason: Reason) -> None:
    error = await raised(router, shell, sent(RouterError(reason, "what was wrong", retry_after=60)))

    assert type(error) is BY_REASON[reason]
    assert error.reason == reason
    assert error.message == "what was wrong"
    assert str(error).startswith("what was wrong.")


def test_the_client_knows_no_reason_that_the_router_does_not() -> None:
    assert BY_REASON.keys() == set(Reason)


async def test_all_bad_fields_are_named(router: ScriptedRouter, shell: Shell) -> None:
    bad = (RouterViolation("messages", "give at least one"), RouterViolation("generation.top_p", "0 to 1"))
    error = await raised(
        router, shell, sent(RouterError(Reason.INVALID_REQUEST, "2 bad fields", violations=bad))
    )

    assert error.violations == (
        Violation("messages", "give at least one"),
        Violation("generation.top_p", "0 to 1"),
    )
    assert str(error) == "2 bad fields. messages: give at least one; generation.top_p: 0 to 1."


async def test_a_violation_that_the_message_tells_is_not_told_twice(
    router: ScriptedRouter, shell: Shell
) -> None:
    bad = (RouterViolation("messages", "give at least one"),)
    told = RouterError(Reason.INVALID_REQUEST, "messages: give at least one", violations=bad)

    assert str(await raised(router, shell, sent(told))) == "messages: give at least one."


async def test_the_trail_of_attempts_is_readable(router: ScriptedRouter, shell: Shell) -> None:
    tried = (
        AttemptSummary("vllm/qwen", "vllm", Outcome.UNAVAILABLE, error_reason="http_503"),
        AttemptSummary("openai/gpt", "openai", Outcome.TIMEOUT),
    )
    told = RouterError(Reason.ALL_TARGETS_FAILED, "every target failed", attempts=tried, retry_after=30)
    error = await raised(router, shell, sent(told))

    assert error.attempts == (
        FailedAttempt("vllm/qwen", "vllm", "unavailable", "http_503"),
        FailedAttempt("openai/gpt", "openai", "timeout"),
    )
    assert error.metadata["attempts"] == "2"
    assert error.retry_after == 30
    assert str(error) == (
        "every target failed. Tried vllm/qwen (unavailable, http_503), openai/gpt (timeout). "
        "Try again in 30 s."
    )


async def test_a_deadline_says_what_was_waited_for(router: ScriptedRouter, shell: Shell) -> None:
    told = RouterError(Reason.DEADLINE_EXCEEDED, "no token in time", phase=Phase.FIRST_TOKEN)
    error = await raised(router, shell, sent(told))

    assert isinstance(error, errors.DeadlineExceeded)
    assert error.phase == "first_token"


async def test_a_missing_capability_is_named(router: ScriptedRouter, shell: Shell) -> None:
    told = RouterError(Reason.CAPABILITY_UNSUPPORTED, "no images here", metadata={"capability": "images"})
    error = await raised(router, shell, sent(told))

    assert isinstance(error, errors.CapabilityUnsupported)
    assert error.capability == "images"


async def test_an_interruption_tells_what_was_used(router: ScriptedRouter, shell: Shell) -> None:
    told = RouterError(Reason.STREAM_INTERRUPTED, "it broke", usage=Usage(input_tokens=9, output_tokens=4))
    error = await raised(router, shell, sent(told))

    assert isinstance(error, errors.StreamInterrupted)
    assert (error.input_tokens, error.output_tokens) == (9, 4)


async def test_an_exceeded_quota_says_whose(router: ScriptedRouter, shell: Shell) -> None:
    whose = (RouterViolation("team-a", "100 calls a minute"),)
    told = RouterError(Reason.QUOTA_EXCEEDED, "the quota is used up", violations=whose, retry_after=20.5)
    error = await raised(router, shell, sent(told))

    assert error.violations == (Violation("team-a", "100 calls a minute"),)
    assert error.retry_after == 20.5


async def test_a_bug_of_the_router_comes_with_the_request_id(router: ScriptedRouter, shell: Shell) -> None:
    error = await raised(router, shell, sent(RouterError(Reason.INTERNAL, "the router failed")))

    assert error.request_id == "req-1"
    assert str(error) == "the router failed. (request req-1)"


async def test_the_request_id_of_the_trailers_is_taken_otherwise(
    router: ScriptedRouter, shell: Shell
) -> None:
    told = sent(RouterError(Reason.MODEL_NOT_FOUND, "no such route"))
    error = await raised(
        router, shell, Fail(told.code, told.message, (*told.trailers, ("x-request-id", "r-7")))
    )

    assert error.request_id == "r-7"


async def test_an_unknown_reason_falls_back_to_the_code(router: ScriptedRouter, shell: Shell) -> None:
    later = rich(grpc.StatusCode.NOT_FOUND, "A_LATER_REASON", "gone", metadata={"a": "b"})
    error = await raised(router, shell, later)

    assert type(error) is errors.ModelNotFound
    assert (error.reason, error.metadata) == ("A_LATER_REASON", {"a": "b"})


async def test_another_domains_reason_is_not_taken_for_ours(router: ScriptedRouter, shell: Shell) -> None:
    fail = rich(grpc.StatusCode.PERMISSION_DENIED, "MODEL_NOT_FOUND", "a proxy says no", domain="mesh")

    error = await raised(router, shell, fail)

    assert type(error) is errors.PermissionDenied
    assert error.reason == ""


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}]
)
async def test_without_a_reason_the_code_decides(
    router: ScriptedRouter, kind: str, code: grpc.StatusCode
) -> None:
    expected = BY_CODE.get(code, ModelRouterError)
    if code is grpc.StatusCode.UNAVAILABLE:
        expected = errors.ServerUnreachable
    async with opened(kind, router.target, max_attempts=1) as shell:
        error = await raised(router, shell, Fail(code, "as it is"))

    assert type(error) is expected
    assert error.code is code
    assert "as it is" in str(error)


async def test_details_that_cannot_be_parsed_are_left_out(router: ScriptedRouter, shell: Shell) -> None:
    garbled = (("grpc-status-details-bin", b"\xff\xff\xff"),)

    error = await raised(router, shell, Fail(grpc.StatusCode.NOT_FOUND, "gone", garbled))

    assert type(error) is errors.ModelNotFound
    assert error.message == "gone"


async def test_one_garbled_detail_does_not_hide_the_others(router: ScriptedRouter, shell: Shell) -> None:
    info = error_details_pb2.RequestInfo(request_id="x")
    fail = rich(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "gone", info, retry_info(2.5), garble=1)

    error = await raised(router, shell, fail)

    assert (error.reason, error.request_id, error.retry_after) == ("MODEL_NOT_FOUND", "", 2.5)


def test_an_error_survives_pickling() -> None:
    error = errors.StreamInterrupted("it broke", code=grpc.StatusCode.ABORTED, reason="R", partial="Par")

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(copy) is errors.StreamInterrupted
    assert (copy.partial, copy.reason, copy.code, str(copy)) == ("Par", "R", error.code, str(error))


async def test_the_rpcs_own_error_is_the_cause(router: ScriptedRouter, shell: Shell) -> None:
    error = await raised(router, shell, Fail(grpc.StatusCode.NOT_FOUND, "gone"))

    assert isinstance(error.__cause__, grpc.RpcError)


async def test_users_of_raw_stubs_can_read_failures_too(router: ScriptedRouter) -> None:
    router.play([sent(RouterError(Reason.MODEL_NOT_FOUND, "no such route"))])
    with grpc.insecure_channel(router.target) as channel:
        stub = ModelRouterServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Chat(ChatRequest())

    assert isinstance(from_rpc_error(caught.value, target=router.target), errors.ModelNotFound)
