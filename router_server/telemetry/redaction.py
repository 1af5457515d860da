"""Keeps credentials out of the log: those that were registered, and what looks like one.

A `logging.Filter` that rewrites a record: message, traceback, stack and structured fields alike. Refuses
to judge whether a record is worth logging.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

MASK: Final = "***"

_SHORTEST: Final = 4
"""Secrets below this length are not masked: ``no`` would be masked out of every ``not``."""

_BEFORE_VALUE: Final = r"(?:[\"']\s*[:,]|\s*[:=])\s*(?:b?[\"'])?"
"""Between a header's name and its value: in HTTP, in JSON, in the repr of a dict or of pairs."""

_LOOKS_SECRET: Final[tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]] = (
    (
        ("authorization", "api-key"),
        re.compile(
            r"(?i)(\b(?:(?:proxy-)?authorization|(?:x-|x-goog-)?api-key)"
            rf"{_BEFORE_VALUE}(?:(?:bearer|basic|token)\s+)?)[^\s\"',;)}}\]]+"
        ),
    ),
    (("cookie",), re.compile(rf"(?i)(\b(?:set-)?cookie{_BEFORE_VALUE})[^\"'\r\n]+")),
    (("bearer",), re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]{8,}")),
    (
        ("key=", "token=", "sig=", "signature="),
        re.compile(r"(?i)([?&](?:key|api[-_]?key|access_token|token|sig|signature)=)[^&\s\"'#]+"),
    ),
    (("://",), re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)")),
    (
        ("sk-", "rk-", "pk-", "aiza", "hf_", "gsk_"),
        re.compile(r"(\b(?:sk|rk|pk)-|\bAIza|\bhf_|\bgsk_)[\w-]{12,}"),
    ),
)
"""What credentials look like, and in lower case what text must hold to be worth a look: most does not."""


_IN_COMMON: Final = ("=", "k-")
"""What several signs have in common: where it is not in a text, neither are they."""


def _by_what_they_have_in_common(signs: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for sign in signs:
        part = next((part for part in _IN_COMMON if part in sign), sign)
        found[part] = (*found.get(part, ()), sign)
    return found


_SIGNS: Final = tuple(
    _by_what_they_have_in_common([sign for signs, _pattern in _LOOKS_SECRET for sign in signs]).items()
)


class Secrets:
    """The secrets that are known by value."""

    def __init__(self) -> None:
        self._values: frozenset[str] = frozenset()
        self._as_written: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def register(self, secret: str) -> None:
        """Mask ``secret`` from now on, wherever it stands; shorter than 4 characters is not masked."""
        if len(secret) < _SHORTEST or secret in self._values:
            return
        self._values |= {secret}
        self._as_written |= {secret, msgspec.json.encode(secret)[1:-1].decode()}
        longest_first = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def redact(self, text: str) -> str:
        """Return ``text`` without registered secrets and without what looks like a credential."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        lower = text.lower()
        for signs, pattern in _LOOKS_SECRET:
            if any(sign in lower for sign in signs):
                text = pattern.sub(rf"\g<1>{MASK}", text)
        return text

    def suspects(self, text: str) -> bool:
        """Tell whether `redact` has to look at ``text``; where this says no, it would change nothing.

        The text may be JSON, in which what was registered looks different where it holds quotes.
        """
        # Every line of the log is looked at, and each look takes 1,500 instructions: so no more than needed.
        for value in self._as_written:
            if value in text:
                return True
        lower = text.lower()
        for part, signs in _SIGNS:  # noqa: SIM110 - a loop, as a generator takes twice as long
            if part in lower and any(sign in lower for sign in signs):
                return True
        return False

    def clean(self, value: Any) -> Any:
        """Return ``value`` with every text in it redacted."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {key: self.clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.clean(inner) for inner in value]
        return value


PROCESS_SECRETS: Final = Secrets()


def register_secret(secret: str) -> None:
    """Mask ``secret`` in everything that this process logs from now on."""
    PROCESS_SECRETS.register(secret)


class RedactionFilter(logging.Filter):
    """Rewrites every record; passes all of them.

    Args:
        secrets: those known by value; without them, the process's.
    """

    def __init__(self, secrets: Secrets = PROCESS_SECRETS) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite ``record``; a traceback becomes text."""
        record.msg = self._secrets.redact(message_of(record))
        record.args = ()
        if record.exc_info:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
            record.exc_info = None
        if record.exc_text:
            record.exc_text = self._secrets.redact(record.exc_text)
        if record.stack_info:
            record.stack_info = self._secrets.redact(record.stack_info)
        fields = getattr(record, "fields", None)
        if fields:
            record.fields = self._secrets.clean(fields)
        return True


def message_of(record: logging.LogRecord) -> str:
    """Return the record's message; one whose arguments do not fit it is returned unformatted."""
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return f"{record.msg} {record.args!r}"
