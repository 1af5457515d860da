"""A model server that takes vLLM's command line and can be told to misbehave: a real process for tests.

``python -m tests.engines.fake_engine --model M --uds PATH``. What it does is said by the file ``orders`` in
the folder FAKE_FOLDER, one word each, read at the start and at every request:

    slow        serve only once the word is gone
    broken      end at once with exit code 3
    dies        end as soon as anything is asked of it
    chatty      print 200 lines at the start
    mute        answer no health check
    stuck       take calls, answer none, and let no counter move
    sleepless   refuse to sleep
    drowsy_long sleep, and stay so until the word is gone
    stubborn    (at the start) ignore SIGTERM, as do a child and a grandchild that leaves the session

It writes ``lives`` into that folder: a line for each start, with its own and its descendants' process ids.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

FOLDER = Path(os.environ["FAKE_FOLDER"])

KEYS = ("OPENAI_API_KEY", "VLLM_API_KEY")

_CHILD = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
print(os.getpid(), flush=True)
time.sleep(600)
"""


def orders() -> set[str]:
    try:
        return set((FOLDER / "orders").read_text().split())
    except FileNotFoundError:
        return set()


def note(name: str, text: str) -> None:
    with (FOLDER / name).open("a") as file:
        file.write(text + "\n")


def stubborn_descendants() -> list[int]:
    child = subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE)  # noqa: S603 - our own code
    assert child.stdout is not None
    return [int(child.stdout.readline()) for _ in range(2)]


@web.middleware
async def mortal(request: web.Request, handler: Any) -> Any:
    if "dies" in orders():
        os._exit(1)
    return await handler(request)


class Fake:
    def __init__(self, model: str) -> None:
        self.model = model
        self.running = 0
        self.tokens = 0
        self.asleep = False

    def app(self) -> web.Application:
        app = web.Application(middlewares=[mortal])
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/sleep", self.sleep)
        app.router.add_post("/wake_up", self.wake)
        app.router.add_get("/is_sleeping", self.sleeping)
        return app

    async def health(self, _request: web.Request) -> web.Response:
        if "mute" in orders():
            await asyncio.sleep(3600)
        return web.Response()

    async def metrics(self, _request: web.Request) -> web.Response:
        label = f'{{model_name="{self.model}"}}'
        return web.Response(
            text=f"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{label} {self.running}\n"
            f"vllm:num_requests_waiting{label} 0\nvllm:generation_tokens_total{label} {self.tokens}\n"
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        assert not self.asleep, "a call came while it slept"
        note("calls", asked["messages"][-1]["content"])
        self.running += 1
        # As in vLLM, a request stays in a core that stands still although its caller has gone.
        while "stuck" in orders():  # noqa: ASYNC110 - the order is a file
            await asyncio.sleep(0.05)
        self.running -= 1
        self.tokens += 2
        return web.json_response(self.answer())

    def answer(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": f"{self.model} in {os.getpid()}"}
        return {
            "id": "c1",
            "object": "chat.completion",
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }

    async def sleep(self, request: web.Request) -> web.Response:
        assert request.query["level"] == "1"
        assert not self.running, "it was put to sleep with a call in it"
        if "sleepless" in orders():
            return web.Response(status=500)
        self.asleep = True
        note("naps", "sleep")
        return web.Response()

    async def wake(self, _request: web.Request) -> web.Response:
        while "drowsy_long" in orders():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
        self.asleep = False
        note("naps", "wake")
        return web.Response()

    async def sleeping(self, _request: web.Request) -> web.Response:
        return web.json_response({"is_sleeping": self.asleep})


async def serve(model: str, uds: str) -> None:
    runner = web.AppRunner(Fake(model).app(), handler_cancellation=False)
    await runner.setup()
    await web.UnixSite(runner, uds).start()
    print("application startup complete", flush=True)  # noqa: T201 - a server says so
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--uds", required=True)
    parser.add_argument("--enable-sleep-mode", action="store_true")
    arguments = parser.parse_args()
    pids = [os.getpid()]
    if "stubborn" in orders():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pids += stubborn_descendants()
    secret = os.environ.get("FAKE_TOKEN", "")
    life = {
        "pids": pids,
        "uds": arguments.uds,
        "model": arguments.model,
        "keys": [name for name in KEYS if name in os.environ],
    }
    note("lives", json.dumps(life))
    print(f"loading {arguments.model} with {secret}", flush=True)  # noqa: T201 - a server says so
    for number in range(200 if "chatty" in orders() else 0):
        print(f"line {number}", flush=True)  # noqa: T201 - as above
    if "broken" in orders():
        sys.exit(3)
    while "slow" in orders():
        time.sleep(0.02)
    asyncio.run(serve(arguments.model, arguments.uds))


if __name__ == "__main__":
    main()
