"""What people do is noted in the queue: on the command line, and in the dashboard."""

import asyncio
import getpass
import json
import socket
from typing import Any

import pytest
from boards import SECRET, browser, fill

from ardiq import Ardiq
from ardiq._server import calls
from ardiq.cli import main
from ardiq.web import User, dashboard

OURS = {"sec-fetch-site": "same-origin"}


async def noted(app: Ardiq) -> list[calls.AuditRow]:
    """What is in the audit log, the newest first."""
    page = await app.context.channel().ask(calls.audit(offset=0, limit=200))
    assert page.size == len(page.rows)
    return page.rows


def test_what_is_done_on_the_command_line_is_noted(app: Ardiq, capsys: pytest.CaptureFixture[str]) -> None:
    app.ref("charge").enqueue_sync()
    later = app.ref("charge").options(delay=3600).enqueue_sync()
    where = [app.redis_url, "--queue", app.queue_name]
    for words, code in (
        ("status", 0),
        (f"task abort {later.id}", 0),
        ("task hurry none", 1),
        ("pause --task charge --unknown", 0),
        (f'pause --arg card_token="{SECRET}" --unknown', 0),
        ("resume --task charge", 0),
        ("resume --task charge", 1),
        ("schedule put nightly charge @daily --unknown", 0),
        ("schedule remove nightly", 0),
        ("limits put partner --concurrency 2", 0),
        ("dlq discard none", 1),
        ("purge", 2),  # nobody is there to agree
        ("purge --yes", 0),
    ):
        command, *more = words.split()
        known = [more.pop(0)] if command in ("task", "schedule", "limits", "dlq") else []
        assert main([command, *known, where[0], *more, *where[1:]]) == code, (words, capsys.readouterr().err)
    capsys.readouterr()
    assert main(["audit", *where, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {(each["user"], each["client"]) for each in told} == {
        (f"{getpass.getuser()}@{socket.gethostname()}", "ardiq")
    }
    assert [(each["action"], each["subject"], each["number"], each["outcome"]) for each in reversed(told)] == [
        ("task abort", later.id, 1, "done"),
        ("task hurry", "none", 0, "not done"),
        ("pause", "--task charge", 1, "done"),
        ("pause", "--arg card_token=…", 1, "done"),
        ("resume", "--task charge", 1, "done"),
        ("resume", "--task charge", 0, "not done"),
        ("schedule put", "nightly --task charge", 1, "done"),
        ("schedule remove", "nightly", 1, "done"),
        ("limits put", "partner", 1, "done"),
        ("dlq discard", "none", 0, "0 discarded, 1 not"),
        ("purge", "", 1, "1 removed"),
    ]
    assert main(["audit", *where, "-n", "2"]) == 0
    assert "2 actions of 11" in capsys.readouterr().out


async def test_what_is_done_in_the_dashboard_is_noted(app: Ardiq) -> None:
    ids = await fill(app)
    board = dashboard(app, auth=lambda request: User("ada", request.headers["role"]))
    root = f"/q/{app.queue_name}"

    async with browser(board, headers=OURS | {"role": "admin"}) as client:
        for action, form in (
            ("abort", {"id": ids["later"]}),
            ("requeue", {"id": ids["later"]}),
            ("pause", {"name": "charge"}),
            ("pause", {"arg": "customer_id=4711"}),
            ("resume", {"pause": "charge()"}),
            ("pause", {}),  # refused: it names nothing
        ):
            await client.post(f"{root}/{action}.json", data=form)
        shown = (await client.get(f"{root}/audit.json")).json()["actions"]
        assert shown == [row._asdict() for row in await noted(app)]
        told = [(each["action"], each["subject"], each["number"], each["outcome"]) for each in reversed(shown)]
        assert told[0] == ("abort", ids["later"], 1, "1 aborted")
        assert [each[:2] for each in told[2:4]] == [("pause", "charge"), ("pause", "customer_id=…")]
        assert len(told) == 5
        assert {(each["user"], each["client"]) for each in shown} == {("ada", "127.0.0.1")}
        page = (await client.get(f"{root}/audit")).text
        assert ids["later"] in page
        assert "4711" not in page
    async with browser(board, headers=OURS | {"role": "viewer"}) as client:
        page = (await client.get(f"{root}/audit")).text
        assert "ada" in page
        assert ids["later"] not in page
        assert all("subject" not in each for each in (await client.get(f"{root}/audit.json")).json()["actions"])


async def test_what_cannot_be_noted_stays_done(
    app: Ardiq, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    core: Any = app.context.server.core
    core.command(["SET", f"{app.context.server.base}audit", "mine"])
    job = await app.ref("charge").enqueue()
    assert await asyncio.to_thread(main, ["pause", app.redis_url, "--queue", app.queue_name]) == 0
    assert "note: this is not in the audit log" in capsys.readouterr().err
    async with browser(dashboard(app, auth="nobody"), headers=OURS) as client:
        answer = await client.post(f"/q/{app.queue_name}/abort.json", data={"id": job.id})
        assert answer.json()["answers"] == {job.id: "aborted"}
    assert any("is not in the audit log" in record.getMessage() for record in caplog.records)
    assert [pause.id for pause in await app.pauses()] == ["*()"]
    core.command(["DEL", f"{app.context.server.base}audit"])
