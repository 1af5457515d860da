"""Calls whose prompts begin alike go to the same endpoint: its cache has the beginning worked out already.

Long beginnings are what system prompts, documents and the turns of one conversation share. The prompt is cut
into blocks; of each beginning it is remembered which endpoints have had it lately, and the longest one that
somebody had decides, as long as that endpoint is not much busier than the least busy. Per process, bounded,
and a guess: what an engine has really kept only it knows. Refuses to know how busy an endpoint is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from router_server.core.plan import Demand
from router_server.core.replicas import least_loaded
from router_server.core.target import Target
from router_server.core.types import (
    Blob,
    ChatRequest,
    EmbedRequest,
    FileRef,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)

BLOCK = 1024
"""Characters of a block, about 256 tokens: less than one saves less time than an uneven load costs."""

_MOST_BLOCKS = 256
"""Blocks of a prompt that are looked at: hashing 256 Ki characters takes about a tenth of a millisecond."""

_MOST = 65_536
"""Beginnings that are remembered; the least recently used goes."""

_MOST_HOLDERS = 4
"""Endpoints that are remembered of one beginning."""

_AHEAD = 4.0
_FACTOR = 1.5
"""How much busier than the least busy endpoint the one with the cache may be: 1.5 times, and 4 requests."""


class PrefixOrder:
    """An `EndpointOrder` for engines that cache the beginnings of prompts.

    Args:
        most: beginnings that are remembered.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._holders: OrderedDict[int, tuple[str, ...]] = OrderedDict()

    def __call__(self, endpoints: Sequence[Target], demand: Demand) -> Sequence[Target]:
        """Return ``endpoints``, whoever has the longest beginning of this prompt first, if it may be."""
        order = least_loaded(endpoints, demand)
        beginnings = beginnings_of(demand.request)
        well = [one for one in order if one.available]
        if not beginnings or not well:
            return order
        most = _FACTOR * well[0].upstream.busyness + _AHEAD
        fit = {one.name: one for one in well if _is_fit(one, most)}
        chosen = self._holder(beginnings, fit) or well[0]
        self._remember(beginnings, chosen.name)
        return (chosen, *(one for one in order if one is not chosen))

    def __len__(self) -> int:
        return len(self._holders)

    def _holder(self, beginnings: Sequence[int], fit: dict[str, Target]) -> Target | None:
        for beginning in reversed(beginnings):
            holders = self._holders.get(beginning, ())
            # ``fit`` is in the order of load, so of several holders the least busy is taken.
            found = next((one for name, one in fit.items() if name in holders), None)
            if found is not None:
                return found
        return None

    def _remember(self, beginnings: Sequence[int], name: str) -> None:
        for beginning in beginnings:
            others = [holder for holder in self._holders.pop(beginning, ()) if holder != name]
            self._holders[beginning] = (name, *others[: _MOST_HOLDERS - 1])
        while len(self._holders) > self._most:
            self._holders.popitem(last=False)


def _is_fit(endpoint: Target, most: float) -> bool:
    upstream = endpoint.upstream
    return endpoint.has_room and not upstream.load.crowded and upstream.busyness <= most


def beginnings_of(request: ChatRequest | EmbedRequest) -> Sequence[int]:
    """Return a hash of each beginning of the prompt that is some whole blocks long, the shortest first."""
    if isinstance(request, EmbedRequest):
        return ()
    beginnings: list[int] = []
    before, rest = 0, ""
    for piece in _pieces(request):
        text = rest + piece[: _MOST_BLOCKS * BLOCK]
        whole = len(text) - len(text) % BLOCK
        for at in range(0, whole, BLOCK):
            before = hash((before, text[at : at + BLOCK]))
            beginnings.append(before)
        if len(beginnings) >= _MOST_BLOCKS:
            break
        rest = text[whole:]
    return beginnings[:_MOST_BLOCKS]


def _pieces(request: ChatRequest) -> Iterator[str]:
    """Yield the text of the prompt about as a chat template has it: tools, then the turns."""
    for tool in request.tools:
        yield f"{tool.name}\0{tool.description}\0{tool.parameters_json_schema}\0"
    for message in request.messages:
        yield f"\0{message.role}\0"
        for part in message.content:
            yield from _part(part)


def _part(part: Part) -> Iterator[str]:
    match part:
        case Blob(data=data):
            yield f"\0{hash(data)}\0"
        case FileRef(uri=uri):
            yield f"\0{uri}\0"
        case ToolResult(content=content):
            for inner in content:
                yield from _part(inner)
        case ToolCall(name=name, arguments_json=arguments):
            yield f"{name}\0{arguments}"
        case Text(text=text) | Reasoning(text=text) | Refusal(text=text):
            yield text
