import pytest

from router_server.core.opaque import seal
from router_server.core.types import (
    Blob,
    FileRef,
    Message,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from tests.providers.gemini_turns import (
    NEW,
    OLD,
    body_of,
    calls,
    contents,
    model,
    refusal_of,
    returns,
    says,
    signed,
    user,
)

SKIP = "skip_thought_signature_validator"


def test_a_plain_question_is_nothing_but_its_contents() -> None:
    assert body_of(user("Hi")) == {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_instructions_from_anywhere_make_up_the_system_instruction_in_order() -> None:
    body = body_of(
        says(Role.SYSTEM, "Be brief."),
        user("Hi"),
        says(Role.DEVELOPER, "Be kind.", "Be true."),
    )

    assert body["systemInstruction"] == {
        "parts": [{"text": "Be brief."}, {"text": "Be kind."}, {"text": "Be true."}]
    }
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]


def test_an_instruction_that_is_not_text_is_refused() -> None:
    picture = Blob("image/png", b"x")

    assert refusal_of(says(Role.SYSTEM, picture), user("Hi")) == "system_message_not_text"


def test_neighbours_of_one_role_become_one_content() -> None:
    turns = contents(user("a"), user("b"), model("c"), model(Refusal("d")), user("e"))

    assert turns == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
        {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
        {"role": "user", "parts": [{"text": "e"}]},
    ]


def test_empty_text_is_left_out_for_gemini_refuses_it() -> None:
    assert contents(user("", "a"), model("")) == [{"role": "user", "parts": [{"text": "a"}]}]


@pytest.mark.parametrize("mime_type", ["image/png", "audio/wav", "application/pdf"])
def test_bytes_go_inline_and_addresses_as_files(mime_type: str) -> None:
    [turn] = contents(
        user(Blob(mime_type, b"\x00\xff"), FileRef(mime_type, "https://x/y"), FileRef("", "gs://b/o"))
    )

    assert turn["parts"] == [
        {"inlineData": {"mimeType": mime_type, "data": "AP8="}},
        {"fileData": {"mimeType": mime_type, "fileUri": "https://x/y"}},
        {"fileData": {"fileUri": "gs://b/o"}},
    ]


def test_results_of_parallel_calls_come_together_under_the_names_of_their_calls() -> None:
    turns = contents(
        user("Weather?"),
        model(calls("weather", "1", '{"city": "Oslo"}'), calls("time", "2", "")),
        returns("1", "rain", " and wind"),
        returns("2", "no clock", is_error=True),
    )

    assert turns[1]["parts"] == [
        {"functionCall": {"id": "1", "name": "weather", "args": {"city": "Oslo"}}},
        {"functionCall": {"id": "2", "name": "time", "args": {}}},
    ]
    assert turns[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"id": "1", "name": "weather", "response": {"result": "rain and wind"}}},
            {"functionResponse": {"id": "2", "name": "time", "response": {"error": "no clock"}}},
        ],
    }


def test_media_of_a_result_go_inside_from_gemini_3_on_and_beside_it_before() -> None:
    history = (
        user("?"),
        model(calls("see", "1")),
        returns("1", Blob("image/png", b"x"), FileRef("image/png", "u")),
    )
    blob = {"inlineData": {"mimeType": "image/png", "data": "eA=="}}
    file = {"fileData": {"mimeType": "image/png", "fileUri": "u"}}

    new, old = contents(*history, name=NEW)[2]["parts"], contents(*history, name=OLD)[2]["parts"]

    assert (new[0]["functionResponse"]["parts"], new[1:]) == ([blob], [file])
    assert ("parts" in old[0]["functionResponse"], old[1:]) == (False, [blob, file])


def test_a_result_without_its_call_is_refused() -> None:
    assert refusal_of(user("?"), returns("1", "x")) == "tool_result_without_call"
    assert refusal_of(returns("1", "x"), model(calls("f", "1"))) == "tool_result_without_call"


def test_a_result_inside_a_user_turn_answers_its_call_as_well() -> None:
    turns = contents(user("?"), model(calls("f", "1")), user(ToolResult("1", (Text("x"),)), "Go on"))

    assert turns[2]["parts"][0]["functionResponse"]["name"] == "f"
    assert turns[2]["parts"][1] == {"text": "Go on"}


@pytest.mark.parametrize("arguments", ["[1]", "nonsense", '"text"', '{"cut": '])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    assert refusal_of(user("?"), model(calls("f", "1", arguments))) == "tool_arguments_not_an_object"


def test_signatures_go_back_verbatim_on_their_own_parts() -> None:
    [_, turn] = contents(
        user("?"),
        model(
            Reasoning("Hm.", signed("A==")),
            Text("So", signed("B==")),
            Text("", signed("C==")),
            calls("f", "1", signature="D=="),
        ),
        name=NEW,
    )

    assert turn["parts"] == [
        {"text": "Hm.", "thought": True, "thoughtSignature": "A=="},
        {"text": "So", "thoughtSignature": "B=="},
        {"text": "", "thoughtSignature": "C=="},
        {"functionCall": {"id": "1", "name": "f", "args": {}}, "thoughtSignature": "D=="},
    ]


def test_reasoning_without_a_signature_of_ours_stays_here() -> None:
    foreign = Reasoning("Secret plan", signed("X", kind="openai"))
    damaged = Reasoning("Cut", signed("X")[:5])

    assert contents(user("?"), model(foreign, damaged, Reasoning("Bare"), "So"))[1]["parts"] == [
        {"text": "So"}
    ]


def test_a_foreign_signature_is_not_sent() -> None:
    call = ToolCall("1", "f", "{}", signed("X", kind="openai"))

    assert "thoughtSignature" not in contents(user("?"), model(call))[1]["parts"][0]


def test_a_signature_that_was_tampered_with_is_refused() -> None:
    assert refusal_of(model(Text("x", seal("gemini", NEW, b"\xff")))) == "opaque_state_tampered"


def signatures(*messages: Message, name: str = NEW) -> list[list[str | None]]:
    return [
        [part.get("thoughtSignature") for part in turn["parts"] if "functionCall" in part]
        for turn in contents(*messages, name=name)
        if turn["role"] == "model"
    ]


FOREIGN_HISTORY = (
    user("Old question"),
    model(calls("f", "0")),
    returns("0", "x"),
    model("Old answer"),
    user("New question"),
    model("Let me see.", calls("f", "1"), calls("g", "2")),
    returns("1", "x"),
    returns("2", "y"),
    model(calls("h", "3")),
    returns("3", "z"),
)


def test_the_first_call_of_each_step_of_the_current_turn_is_excused() -> None:
    assert signatures(*FOREIGN_HISTORY) == [[None], [], [SKIP, None], [SKIP]]


@pytest.mark.parametrize(
    ("name", "excused"),
    [
        ("gemini-3-flash-preview", True),
        ("gemini-3.8-flash", True),
        ("gemini-flash-latest", True),
        ("gemini-2.5-pro", False),
        ("gemini-2.0-flash", False),
        ("gemma-4-31b-it", False),
    ],
)
def test_only_gemini_3_and_later_need_the_excuse(name: str, *, excused: bool) -> None:
    assert signatures(*FOREIGN_HISTORY, name=name)[-1] == [SKIP if excused else None]


def test_a_call_with_its_own_signature_needs_no_excuse() -> None:
    history = (user("?"), model(calls("f", "1", signature="A=="), calls("g", "2")), returns("1", "x"))

    assert signatures(*history) == [["A==", None]]


def test_a_remark_beside_a_result_does_not_begin_a_new_turn() -> None:
    history = (user("?"), model(calls("f", "1")), returns("1", "x"), user("Go on"), model(calls("f", "2")))

    assert signatures(*history) == [[SKIP], [SKIP]]
