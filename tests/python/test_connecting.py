"""Connections that open and close with a web server: `app.connected`, `ping`, `close`, with the real packages."""

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from helpers import eventually
from litestar import Litestar, post

from ardiq import Ardiq, BrokerError, _core
from ardiq.embedded import Server

AWAY = "redis://127.0.0.1:1"


def connections(server: Server) -> int:
    """Of others than who asks."""
    core = _core.Core(server.url, "ardiq:{default}:")
    try:
        return len(core.command(["CLIENT", "LIST"]).splitlines()) - 1
    finally:
        core.close()


async def call(host: Any, method: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url="http://test") as client:
        return await client.request(method, path)


async def test_fastapi() -> None:
    with Server() as server:
        app = Ardiq(server.url)
        api = FastAPI(lifespan=app.connected)

        @api.post("/mail/{name}")
        async def send(name: str) -> str:
            job = await app.queue("mail").send("mail", name)
            return job.id

        async with api.router.lifespan_context(api):
            await eventually(lambda: connections(server) >= 1)
            answer = await call(api, "POST", "/mail/Ada")
            assert answer.status_code == 200
        assert connections(server) == 0, "those of other queues, too"
        assert app.queue("mail").status_sync(answer.json()) == "queued", "it is opened again"
        app.close()
        assert connections(server) == 0


async def test_litestar() -> None:
    with Server() as server:
        app = Ardiq(server.url)

        @post("/mail")
        async def send() -> str:
            return (await app.send("mail")).id

        site = Litestar([send], lifespan=[app.connected])
        async with site.lifespan():
            await eventually(lambda: connections(server) >= 1)
            answer = await call(site, "POST", "/mail")
            assert answer.status_code == 201
        assert connections(server) == 0
        assert app.status_sync(answer.text) == "queued"
        app.close()


async def test_a_server_that_is_away_keeps_no_web_server_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    api = FastAPI(lifespan=Ardiq(AWAY, broker_timeout_ms=100).connected)

    @api.get("/")
    async def well() -> str:
        return "well"

    with caplog.at_level(logging.WARNING, "ardiq"):
        async with api.router.lifespan_context(api):
            assert (await call(api, "GET", "/")).json() == "well"
    assert "trying again with the next call" in caplog.text


async def test_ping_says_whether_the_server_answers(make_app: Callable[..., Ardiq]) -> None:
    await make_app().ping()
    with pytest.raises(BrokerError):
        await make_app(redis_url=AWAY, broker_timeout_ms=100).ping()


async def test_an_app_is_used_after_it_was_closed(app: Ardiq) -> None:
    job = await app.send("mail")
    await app.aclose()
    await app.aclose()
    assert await app.status(job.id) == "queued"
    async with app.connected():
        assert await app.status(job.id) == "queued"
