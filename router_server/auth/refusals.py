"""What callers are told who are not known, without a word of what they showed."""

from __future__ import annotations

from router_server.core.errors import Reason, RouterError


def unauthenticated(message: str, problem: str) -> RouterError:
    """Return the refusal of someone who is not known.

    Args:
        message: what is wrong and what to do.
        problem: the same as one word for programs: ``missing``, ``invalid``, ``expired``.
    """
    return RouterError(Reason.UNAUTHENTICATED, message, metadata={"problem": problem})
