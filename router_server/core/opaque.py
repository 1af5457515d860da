"""The envelope around a provider's opaque state: version, provider kind, model, payload.

A caller echoes it verbatim; only the kind that sealed it can read it. Refuses to know what the payload
means.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and who sealed it."""

    kind: str
    model: str
    payload: bytes = field(repr=False)


def seal(kind: str, model: str, payload: bytes) -> bytes:
    """Return the envelope's bytes: a version byte, two length-prefixed names, the payload.

    Raises:
        ValueError: a name is longer than 255 bytes.
    """
    names = [name.encode() for name in (kind, model)]
    if any(len(name) > 255 for name in names):  # noqa: PLR2004 - a length is one byte
        raise ValueError("the kind's and the model's names are at most 255 bytes each")
    return bytes([_VERSION]) + b"".join(bytes([len(n)]) + n for n in names) + payload


def unseal(state: bytes) -> Envelope | None:
    """Return the envelope, or None where the bytes are not one that this version can read."""
    if not state or state[0] != _VERSION:
        return None
    names: list[str] = []
    at = 1
    for _ in range(2):
        if at >= len(state) or at + 1 + state[at] > len(state):
            return None
        try:
            names.append(state[at + 1 : at + 1 + state[at]].decode())
        except UnicodeDecodeError:
            return None
        at += 1 + state[at]
    return Envelope(names[0], names[1], state[at:])
