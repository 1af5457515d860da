"""Conversations: what their parts become, and every way in which one is bad."""

from __future__ import annotations

from typing import Any

import pytest

from router_server.core.types import (
    Blob,
    FileRef,
    MediaDetail,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from tests.rpc.reading import USER, bad_fields, call, read, result, turn


def test_every_part_of_a_conversation() -> None:
    request = read(
        messages=[
            turn("SYSTEM", {"text": "be brief"}),
            turn("DEVELOPER", {"text": "and kind"}),
            turn(
                "USER",
                {
                    "inlineData": {
                        "mimeType": "image/png",
                        "data": "AQI=",
                        "filename": "a.png",
                        "detail": "MEDIA_DETAIL_LOW",
                    }
                },
                {"file": {"uri": "https://example.org/a.pdf", "mimeType": "application/pdf"}},
            ),
            turn(
                "ASSISTANT",
                {"reasoning": {"text": "hm"}, "opaqueState": "AQ=="},
                {"refusal": "no"},
                call("1", ""),
            ),
            turn("TOOL", result("1")),
        ]
    )
    assert [message.content for message in request.messages] == [
        (Text("be brief"),),
        (Text("and kind"),),
        (
            Blob("image/png", b"\x01\x02", "a.png", MediaDetail.LOW),
            FileRef("application/pdf", "https://example.org/a.pdf"),
        ),
        (Reasoning("hm", b"\x01"), Refusal("no"), ToolCall("1", "weather", "{}")),
        (ToolResult("1", (Text("sunny"),)),),
    ]


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "add at least one message"),
    ({"messages": [{"content": [{"text": "x"}]}]}, "messages[0].role", "say who speaks"),
    ({"messages": [{"role": 17, "content": [{"text": "x"}]}]}, "messages[0].role", "use one of ROLE_SYSTEM"),
    ({"messages": [USER, {"role": "ROLE_USER"}]}, "messages[1].content", "at least one part"),
    ({"messages": [turn("USER", {})]}, "messages[0].content[0]", "set one of text, inline_data, file;"),
    (
        {"messages": [turn("SYSTEM", {"refusal": "x"})]},
        "messages[0].content[0].refusal",
        "takes text, not refusal",
    ),
    (
        {"messages": [turn("USER", call("1"))]},
        "messages[0].content[0].tool_call",
        "a ROLE_USER message takes",
    ),
    (
        {"messages": [turn("TOOL", {"text": "x"})]},
        "messages[0].content[0].text",
        "takes tool_result, not text",
    ),
    ({"messages": [turn("ASSISTANT", call(""))]}, "messages[0].content[0].tool_call.id", "must not be empty"),
    (
        {"messages": [turn("ASSISTANT", call("1"), call("1"))]},
        "messages[0].content[1].tool_call.id",
        '"1" is already the id of messages[0].content[0].tool_call',
    ),
    (
        {"messages": [turn("ASSISTANT", {"toolCall": {"id": "1"}})]},
        "messages[0].content[0].tool_call.name",
        "empty",
    ),
    (
        {"messages": [turn("ASSISTANT", call("1", "[1]"))]},
        "messages[0].content[0].tool_call.arguments_json",
        "must be a JSON object such as {}, not an array",
    ),
    (
        {"messages": [turn("ASSISTANT", call("1", '{"a"'))]},
        "messages[0].content[0].tool_call.arguments_json",
        "cannot be parsed",
    ),
    (
        {"messages": [turn("ASSISTANT", call("1", '{"a":' * 5_000))]},
        "messages[0].content[0].tool_call.arguments_json",
        "nested too deeply",
    ),
    (
        {"messages": [USER, turn("TOOL", result("9"))]},
        "messages[1].content[0].tool_result.tool_call_id",
        'no earlier message has a tool_call with the id "9"',
    ),
    (
        {"messages": [turn("ASSISTANT", call("1")), turn("TOOL", result("1"), result("1"))]},
        "messages[1].content[1].tool_result.tool_call_id",
        "already answered at messages[1].content[0].tool_result.tool_call_id",
    ),
    (
        {"messages": [turn("TOOL", result(""))]},
        "messages[0].content[0].tool_result.tool_call_id",
        "name the id",
    ),
    (
        {
            "messages": [
                turn("ASSISTANT", call("1")),
                turn("TOOL", {"toolResult": {"toolCallId": "1", "content": [{"refusal": "x"}]}}),
            ]
        },
        "messages[1].content[0].tool_result.content[0].refusal",
        "a tool_result takes text or inline_data or file",
    ),
    (
        {"messages": [turn("USER", {"inlineData": {"mimeType": "png", "data": "AQ=="}})]},
        "messages[0].content[0].inline_data.mime_type",
        '"png" is not a MIME type',
    ),
    (
        {"messages": [turn("USER", {"inlineData": {"mimeType": "image/png"}})]},
        "messages[0].content[0].inline_data.data",
        "empty",
    ),
    (
        {"messages": [turn("USER", {"file": {"uri": "a.png"}})]},
        "messages[0].content[0].file.uri",
        "absolute URI",
    ),
    (
        {"messages": [turn("USER", {"file": {"uri": "FILE:///etc/passwd"}})]},
        "messages[0].content[0].file.uri",
        "file: URIs are refused",
    ),
    (
        {"messages": [turn("USER", {"file": {"uri": "https://x", "mimeType": "x"}})]},
        "messages[0].content[0].file.mime_type",
        "MIME type",
    ),
    (
        {"messages": [turn("USER", {"file": {"uri": "https://x", "detail": 9}})]},
        "messages[0].content[0].file.detail",
        "MEDIA_DETAIL_LOW, MEDIA_DETAIL_HIGH",
    ),
    ({"messages": [{**USER, "name": "n" * 129}]}, "messages[0].name", "128 are allowed"),
]


@pytest.mark.parametrize(("fields", "field", "says"), BAD_FIELDS, ids=[row[1] for row in BAD_FIELDS])
def test_a_bad_field(fields: dict[str, Any], field: str, says: str) -> None:
    found = bad_fields(**fields)
    assert list(found) == [field]
    assert says in found[field]


def test_a_callers_text_is_quoted_short_and_printable() -> None:
    found = bad_fields(messages=[turn("TOOL", result("\x1b[31m" + "x" * 500))])
    (description,) = found.values()
    assert "\x1b" not in description
    assert len(description) < 200
