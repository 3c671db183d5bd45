"""The HTTP side of the pretended server: health, metrics, models and completions."""

import asyncio
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aiohttp import web
from packaging.version import Version

from orchestrator import __version__
from orchestrator.simulator import completions
from orchestrator.simulator.completions import BadRequestError, Completion
from orchestrator.simulator.engine import Engine, EngineDeadError
from orchestrator.simulator.metrics import CacheFacts, EngineCollector, exposition, usage_ratio
from orchestrator.simulator.requests import Finish, token_text

STATISTICS_SECONDS = 10.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JSON_INVALID = "[{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error'}]"


@dataclass
class Served:
    """What one server serves; `failing` is set when the first request shall kill the engine."""

    version: Version
    version_text: str
    root: str
    names: list[str]
    max_model_len: int
    api_keys: frozenset[str]
    engines: Sequence[Engine]
    facts: CacheFacts
    access: Callable[[str], None]
    statistics: Callable[[str, bool], None] | None = None
    failing: bool = False
    died: asyncio.Event = field(default_factory=asyncio.Event)


class Api:
    """The routes of the server and their answers."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._next = itertools.cycle(served.engines)
        self._collector = EngineCollector(served.engines, served.facts, served.names[0], served.version)

    def application(self) -> web.Application:
        """Return the application with vLLM's routes."""
        application = web.Application(middlewares=[self._logged, self._framed], client_max_size=64 * 2**20)
        application.router.add_get("/health", self.health)
        application.router.add_get("/ping", self.health)
        application.router.add_get("/version", self.version)
        application.router.add_get("/metrics", self.metrics)
        application.router.add_get("/v1/models", self.models)
        application.router.add_post("/v1/completions", self.completion)
        application.router.add_post("/v1/chat/completions", self.chat)
        return application

    @web.middleware
    async def _logged(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Print one line per request, as uvicorn does."""
        response = await handler(request)
        host, port = (request.transport.get_extra_info("peername") or ("", 0))[:2] if request.transport else ("", 0)
        reason = HTTPStatus(response.status).phrase
        self._served.access(
            f'INFO:     {host}:{port} - "{request.method} {request.path_qs} HTTP/1.1" {response.status} {reason}'
        )
        return response

    @web.middleware
    async def _framed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the key, and turn errors into vLLM's error objects."""
        keys = self._served.api_keys
        if keys and request.path.startswith("/v1"):
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if bearer not in keys:
                return web.json_response({"error": "Unauthorized"}, status=401, headers=_headers())
        try:
            response = await handler(request)
        except BadRequestError as error:
            body = completions.error_body(self._served.version, error)
            return web.json_response(body, status=error.status, headers=_headers())
        except EngineDeadError:
            dead = BadRequestError(
                "EngineCore encountered an issue. See stack trace (above) for the root cause.",
                status=500,
                kind="InternalServerError",
            )
            body = completions.error_body(self._served.version, dead)
            return web.json_response(body, status=500, headers=_headers())
        if not response.prepared:
            response.headers.update(_headers())
        return response

    async def health(self, _request: web.Request) -> web.Response:
        """Answer 200 while the engines live, 503 after."""
        return web.Response(status=503 if self._served.engines[0].dead else 200)

    async def version(self, _request: web.Request) -> web.Response:
        """Answer with the simulated version, and say who answers."""
        return web.json_response({"version": self._served.version_text, "kprof_simulator": __version__})

    async def metrics(self, _request: web.Request) -> web.Response:
        """Answer a Prometheus scrape."""
        return web.Response(
            body=exposition(self._collector),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def models(self, _request: web.Request) -> web.Response:
        """List the names of the one model."""
        served = self._served
        data = [
            {
                "id": name,
                "object": "model",
                "created": 0,
                "owned_by": "vllm",
                "root": served.root,
                "parent": None,
                "max_model_len": served.max_model_len,
            }
            for name in served.names
        ]
        return web.json_response({"object": "list", "data": data})

    async def completion(self, request: web.Request) -> web.StreamResponse:
        """Complete a text."""
        return await self._complete(request, chat=False)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        return await self._complete(request, chat=True)

    async def _complete(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        served = self._served
        try:
            body: Any = await request.json()
        except (ValueError, UnicodeDecodeError):
            raise BadRequestError(JSON_INVALID, kind="Bad Request") from None
        completion = completions.parse(
            body, chat=chat, names=served.names, max_model_len=served.max_model_len, version=served.version
        )
        engine = next(self._next)
        engine.submit(completion.request)
        try:
            if served.failing:
                await _news(completion)
                engine.die()
                served.died.set()
                raise EngineDeadError
            if completion.stream:
                return await self._stream(request, completion)
            while completion.request.finish is None:
                await _news(completion)
            if completion.request.finish is Finish.ABORT:
                raise EngineDeadError
            return web.json_response(completions.whole_answer(completion))
        finally:
            engine.abort(completion.request)

    async def _stream(self, request: web.Request, completion: Completion) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **_headers()})
        await response.prepare(request)
        sent, answer = 0, completion.request
        while answer.finish is None or sent < answer.produced:
            if answer.finish is None:
                await _news(completion)
            while sent < answer.produced:
                last = answer.finish is not None and sent + 1 == answer.produced
                finish = answer.finish.value if last and answer.finish is not None else None
                await _send(response, completions.chunk(completion, token_text(sent), finish))
                sent += 1
        if completion.include_usage:
            await _send(response, completions.usage_chunk(completion))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _headers() -> dict[str, str]:
    return {"Server": f"kprof-simulator/{__version__}"}


async def _news(completion: Completion) -> None:
    await completion.request.news.wait()
    completion.request.news.clear()


async def _send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(f"data: {json.dumps(event)}\n\n".encode())


async def report_statistics(served: Served) -> None:
    """Report throughput and usage every ten seconds, as vLLM's log does; the flag says whether anything ran."""
    before = [(0, 0) for _ in served.engines]
    while served.statistics is not None:
        await asyncio.sleep(STATISTICS_SECONDS)
        for index, engine in enumerate(served.engines):
            counters = engine.counters
            prompt, answer = counters.prompt_tokens - before[index][0], counters.generation_tokens - before[index][1]
            before[index] = counters.prompt_tokens, counters.generation_tokens
            hit_rate = 100 * counters.prefix_hits / counters.prefix_queries if counters.prefix_queries else 0.0
            line = (
                f"Engine {index:03d}: Avg prompt throughput: {prompt / STATISTICS_SECONDS:.1f} tokens/s, "
                f"Avg generation throughput: {answer / STATISTICS_SECONDS:.1f} tokens/s, "
                f"Running: {len(engine.running)} reqs, Waiting: {len(engine.waiting)} reqs, "
                f"GPU KV cache usage: {100 * usage_ratio(engine, served.version):.1f}%, "
                f"Prefix cache hit rate: {hit_rate:.1f}%"
            )
            served.statistics(line, bool(prompt or answer or engine.running))


async def serve_http(served: Served, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Listen, call `ready`, and serve until an engine dies; cancel it to stop."""
    # vLLM aborts running requests when it is told to stop, so nothing is waited for.
    runner = web.AppRunner(
        Api(served).application(),
        access_log=None,
        shutdown_timeout=0.1,
        handle_signals=False,
        handler_cancellation=True,  # a client that goes away aborts its request
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        ready()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.run()) for engine in served.engines]
            tasks.append(group.create_task(report_statistics(served)))
            await served.died.wait()
            for task in tasks:
                task.cancel()
    finally:
        await runner.cleanup()
