"""What `ardiq task show` and `ardiq workflow show` tell of the children of a task."""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from helpers import eventually, field, working

from ardiq import Ardiq, Signal, children, wait_for

MODULE = f"{__name__}:cli_app"
Run = Callable[..., tuple[int, str]]
approval = Signal("approval", bool)


@pytest.fixture
def app(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app: Ardiq = make_app()

    @app.task
    async def ask() -> bool | None:
        return await wait_for(approval)

    @app.task
    async def order() -> list[bool | None]:
        found = await children("ask", [ask.prepare(), ask.prepare()])
        await wait_for(approval)
        return found

    monkeypatch.setattr(sys.modules[__name__], "cli_app", app, raising=False)
    return app


async def test_a_task_and_its_children_tell_of_each_other(app: Ardiq, ardiq: Run) -> None:
    job = await app.ref("order").options(task_id="order-7").enqueue()
    async with working(app):
        await eventually(lambda: field(app, "order-7.ask~ask_2", "waits_for"))
        _, text = ardiq("task", "show", MODULE, job.id)
        assert "scheduled, waits for its children 'ask': ardiq workflow show has them, as order-7.ask" in text
        assert re.search(r"children:ask +waits until they have ended", text)
        _, text = ardiq("workflow", "show", MODULE, "order-7.ask")
        assert "order-7.ask: ask\nrunning, 0 of 2 done\n" in text
        assert "the children of task order-7\n" in text
        assert json.loads(ardiq("workflow", "show", MODULE, "order-7.ask", "--json")[1])["parent"] == "order-7"
        for child in ("order-7.ask~ask", "order-7.ask~ask_2"):
            assert ardiq("workflow", "signal", MODULE, child, "approval", "true")[0] == 0
        await eventually(lambda: field(app, job.id, "waits_for") == "wait_for:approval")
        assert re.search(r"children:ask +complete", ardiq("task", "show", MODULE, job.id)[1])
        steps = json.loads(ardiq("task", "show", MODULE, job.id, "--json")[1])["steps"]
        assert steps[0] == {"name": "children:ask", "kind": "ended", "state": "complete"}
        assert await job.abort()
