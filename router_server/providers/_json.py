"""Decoding what an upstream sent as JSON: whatever is wrong with it makes the answer MALFORMED.

Refuses to know any API's shapes.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from router_server.core.errors import Outcome, UpstreamError

T = TypeVar("T")

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: also for bytes that are no UTF-8, and for what is nested deeper than its stack."""

_MOST_TOKENS: Final = 2**40
"""Sums of so many still fit the contract's 64 bits, at any price."""

Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)]
"""A number of tokens; anything else is as wrong as a word in its place."""


def decoded(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    """Return what ``decoder`` reads.

    Raises:
        UpstreamError: MALFORMED, ``not_json`` or ``wrong_shape``.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise UpstreamError(Outcome.MALFORMED, "wrong_shape") from None
    except UNREADABLE:
        raise UpstreamError(Outcome.MALFORMED, "not_json") from None
