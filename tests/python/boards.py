"""A queue with something on every screen of the dashboard, and ways to ask for its pages."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from typing import Any

import httpx

from ardiq import Ardiq, Flow, current_task

HOSTILE = "</script><script>alert('x')</script>\n\ndata: \" onload=x '{{7*7}}"
NAME = "<script>alert('name')</script>"
SECRET = "geheim-4711"
SCREENS = ("", "tasks", "dead", "workflows", "schedules", "workers", "limits", "pauses", "audit")
STATES = ("queued", "running", "scheduled", "held", "dead", "quarantined")


@asynccontextmanager
async def browser(board: Any, base: str = "http://testserver", **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=board, client=options.pop("client", ("127.0.0.1", 1)))
    async with httpx.AsyncClient(transport=transport, base_url=base, **options) as client:
        yield client


async def fill(app: Ardiq) -> dict[str, str]:
    """Tasks in every place; names, arguments, errors, notes and log lines are somebody's who means ill."""
    app.burst = True
    partner = app.limit("partner", concurrency=2)

    @app.task(name="charge", max_retries=0)
    async def charge(order: Any, card_token: str, *, nested: Any = None) -> Any:
        context = current_task()
        context.log(HOSTILE)
        context.note(api_key=SECRET, plain=HOSTILE)
        context.progress(0.5, HOSTILE)
        if order == "bad":
            raise ValueError(HOSTILE)
        return {"order": order, "password": SECRET}

    @app.task(name=NAME)
    async def hostile(text: str) -> None: ...

    @app.task(name="sync", limits=[partner])
    async def sync(customer_id: int) -> None: ...

    done = await charge.enqueue(HOSTILE, SECRET, nested={"cookie": SECRET, "deep": [{"token": SECRET}]})
    dead = await charge.enqueue("bad", SECRET)
    flow = Flow()
    first = flow.add(sync.prepare(1), name="first")
    flow.add(sync.prepare(2), name="then").after(first)
    await app.run()
    workflow = await app.start(flow)
    await hostile.enqueue(HOSTILE)
    later = await charge.options(delay=3600).enqueue(1, SECRET)
    await app.pause("sync", argument={"customer_id": 99})
    await app.schedules.put("nightly", "sync", "0 3 * * *", args=[5])
    return {"done": done.id, "dead": dead.id, "later": later.id, "workflow": workflow.id}


def links(page: str) -> set[str]:
    return {unescape(link) for link in re.findall(r'(?:href|src)="([^"#]*)"', page)} - {"data:,"}


def calls(app: Ardiq) -> dict[str, int]:
    """How often the server was asked what, by command."""
    text = app.context.server.core.command(["INFO", "commandstats"]).decode()
    return {name: int(number) for name, number in re.findall(r"cmdstat_(\S+?):calls=(\d+)", text)}


def functions(app: Ardiq) -> int:
    """How many functions of the library it has run."""
    return sum(number for name, number in calls(app).items() if name in ("fcall", "fcall_ro", "evalsha", "evalsha_ro"))
