"""What people do in the dashboard: each action by each role and from each site, what it changes, what is told of it."""

import json
import logging
import re
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from boards import HOSTILE, NAME, SCREENS, SECRET, browser, fill, functions, links
from documents import ROOT

from ardiq import Ardiq, Flow
from ardiq._server import calls
from ardiq.web import Token, User, dashboard
from ardiq.web._actions import ACTIONS
from ardiq.web._redact import HIDDEN

FORM = {"content-type": "application/x-www-form-urlencoded"}
OWN = {"sec-fetch-site": "same-origin", **FORM}
PERMISSION = {
    "enqueue": "enqueue",
    "purge": "purge",
    "abort": "steer",
    "hurry": "steer",
    "again": "steer",
    "amend": "amend",
    "pause-workflow": "pause",
    "resume-workflow": "pause",
    "retry-workflow": "replay",
    "requeue": "replay",
    "discard": "delete",
    "requeue-group": "replay",
    "discard-group": "delete",
    "pause": "pause",
    "resume": "pause",
    "pause-schedule": "schedules",
    "resume-schedule": "schedules",
    "run-schedule": "schedules",
}
ASKED_BEFORE = {"enqueue", "purge", "amend", "abort", "discard", "requeue-group", "discard-group"}
MAY = {
    "viewer": set[str](),
    "operator": {"steer", "replay", "pause", "schedules", "enqueue"},
    "admin": {"steer", "replay", "pause", "schedules", "delete", "amend", "enqueue", "purge"},
}


def fields_of(ids: dict[str, str], queue: str) -> dict[str, dict[str, str]]:
    """A form for each action that changes something."""
    group = {"name": "charge", "kind": "ValueError"}
    return {
        "enqueue": {"name": "sync", "args": "[3]"},
        "abort": {"id": ids["later"]},
        "hurry": {"id": ids["later"]},
        "again": {"id": ids["done"]},
        "amend": {"id": ids["dead"], "args": '["good", "t"]'},
        "pause-workflow": {"id": ids["workflow"]},
        "resume-workflow": {"id": ids["workflow"]},
        "retry-workflow": {"id": ids["workflow"]},
        "requeue": {"id": ids["dead"]},
        "discard": {"id": ids["dead"]},
        "requeue-group": group,
        "discard-group": group,
        "pause": {"name": "sync"},
        "resume": {"pause": "sync(customer_id=99)"},
        "pause-schedule": {"name": "nightly"},
        "resume-schedule": {"name": "nightly"},
        "run-schedule": {"name": "nightly"},
        "purge": {"queue": queue},
    }


async def post(client: httpx.AsyncClient, app: Ardiq, action: str, **fields: Any) -> httpx.Response:
    content = urlencode(fields, doseq=True)
    return await client.post(f"/q/{app.queue_name}/{action}", content=content, headers=OWN)


async def do(client: httpx.AsyncClient, app: Ardiq, action: str, **fields: Any) -> str:
    """Press the button of an action, say yes, and read what is told."""
    answer = await post(client, app, action, **fields)
    if answer.status_code == 200:
        given = re.findall(
            r'<input type="hidden" name="([^"]*)" value="([^"]*)">', answer.text.split('class="panel ask"')[1]
        )
        sent = {unescape(name): unescape(value) for name, value in given if name != "id"}
        answer = await post(client, app, action, **sent, id=fields.get("id", ""), confirmed="1")
    assert answer.status_code == 303, answer.text
    return notice(await client.get(answer.headers["location"]))


def notice(page: httpx.Response) -> str:
    assert page.status_code == 200
    (found,) = re.findall(r'<p class="notice[^>]*>(.*?)</p>', page.text, re.DOTALL)
    return unescape(found)


def test_every_action_is_in_the_table() -> None:
    assert {name: action.permission for name, action in ACTIONS.items()} == PERMISSION
    assert {name for name, action in ACTIONS.items() if action.ask is not None} == ASKED_BEFORE
    guide = (ROOT / "docs/dashboard.md").read_text().partition("## What people can do")[2].partition("##")[0]
    rows = [line.split("|")[1] for line in guide.splitlines() if line.startswith("| `")]
    assert {name for names in rows for name in re.findall("`(.*?)`", names)} == set(ACTIONS)


@pytest.mark.parametrize("role", [*MAY, "nothing", "elsewhere", "nobody"])
async def test_each_role_does_what_it_may(app: Ardiq, role: str) -> None:
    user = {"nothing": User("ada", may=()), "elsewhere": User("ada", "admin", queues=["other-*"]), "nobody": None}
    who = user[role] if role in user else User("ada", role)
    forms = sorted(fields_of(await fill(app), app.queue_name).items(), key=lambda each: each[0] not in ASKED_BEFORE)
    for twin in ("", ".json"):
        for name, fields in forms:
            async with browser(dashboard(app, auth=lambda request: who)) as client:
                before = functions(app)
                answer = await post(client, app, name + twin, **fields)
                may = PERMISSION[name] in MAY.get(role, ())
                refused = {"elsewhere": 404, "nobody": 401}.get(role, 403)
                right = 200 if twin or name in ASKED_BEFORE else 303
                assert answer.status_code == (right if may else refused), (name, twin)
                assert may or functions(app) == before, "the server was asked for somebody who may not"
                assert (await client.get(f"/q/{app.queue_name}/{name}{twin}", headers=OWN)).status_code == 405


@pytest.mark.parametrize("role", MAY)
async def test_pages_have_the_buttons_of_a_role_alone(app: Ardiq, role: str) -> None:
    ids = await fill(app)
    async with browser(dashboard(app, auth=lambda request: User("ada", role))) as client:
        seen = set()
        screens = (*SCREENS, f"workflows/{ids['workflow']}")
        for path in (*screens, "tasks?state=scheduled", "tasks?state=dead", *(f"tasks/{id}" for id in ids.values())):
            page = (await client.get(f"/q/{app.queue_name}/{path}")).text
            seen |= set(re.findall(rf'action="/q/{app.queue_name}/([^"]*)"', page)) & set(ACTIONS)
        assert seen == {name for name, need in PERMISSION.items() if need in MAY[role]} - {
            "resume-schedule",
            "retry-workflow",
        }


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "http://testserver"},
        {"origin": "https://testserver"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {},
    ],
)
async def test_other_sites_do_nothing(app: Ardiq, headers: dict[str, str]) -> None:
    async with browser(dashboard(app, auth="nobody")) as client:
        before = functions(app)
        for name in ACTIONS:
            for twin in ("", ".json"):
                address = f"/q/{app.queue_name}/{name}{twin}"
                answer = await client.post(address, content="id=x&confirmed=1", headers={**FORM, **headers})
                assert answer.status_code == 403
        assert functions(app) == before


async def test_programs_act_with_the_token(app: Ardiq) -> None:
    ids = await fill(app)
    async with browser(dashboard(app, auth=Token("a token of many bytes"))) as client:
        headers = {"authorization": "Bearer a token of many bytes"}
        address = f"/q/{app.queue_name}/hurry.json"
        answer = await client.post(address, data={"id": [ids["later"], "nobody"]}, headers=headers)
        assert answer.json()["done"] is True
        assert answer.json()["answers"] == {ids["later"]: "queued", "nobody": "not_found"}
        assert (await client.post(address, json={"id": [ids["later"]]}, headers=headers)).status_code == 415
        assert (await client.post(address, data={"no": "id"}, headers=headers)).status_code == 400


async def test_waiting_tasks_are_hurried_and_aborted(app: Ardiq) -> None:
    ids = await fill(app)
    async with browser(dashboard(app, auth="nobody")) as client:
        assert await do(client, app, "hurry", id=ids["later"]) == f"{ids['later']}: ready, and runs at its turn."
        assert await app.status(ids["later"]) == "queued"
        question = await post(client, app, "abort", id=[ids["later"], ids["done"]])
        assert "Abort 2 tasks?" in question.text
        assert await app.status(ids["later"]) == "queued", "it was only asked"
        told = await do(client, app, "abort", id=[ids["later"], ids["done"], "a<b"])
        assert told == (
            f"1 aborted. 1 ended before; nothing was changed ({ids['done']}). "
            "1 unknown: never enqueued, or no longer kept (a<b)."
        )
        assert (await app.context.inspector.record(ids["later"]))["state"] == "aborted"
        assert await do(client, app, "hurry", id=ids["done"]) == f"{ids['done']}: ended before; nothing was changed."
        assert await do(client, app, "abort") == "No task was chosen: tick at least one."
        assert "too many" in await do(client, app, "hurry", id=[str(number) for number in range(201)])


async def test_a_dead_letter_is_run_again_and_discarded(app: Ardiq) -> None:
    ids = await fill(app)
    async with browser(dashboard(app, auth="nobody")) as client:
        page = f"/q/{app.queue_name}/dead.json"
        assert len((await client.get(page)).json()["groups"]) == 1
        assert await do(client, app, "requeue", id=ids["dead"]) == f"{ids['dead']}: queued again."
        assert (await client.get(page)).json()["groups"] == [], "an old answer is shown"
        gone = f"{ids['dead']}: no dead letter any more; nothing was changed."
        assert await do(client, app, "requeue", id=ids["dead"]) == gone
        assert await do(client, app, "discard", id=ids["dead"]) == gone
        await app.run()
        assert await app.dead.count() == 1
        assert await do(client, app, "discard", id=ids["dead"]) == f"{ids['dead']}: discarded."
        assert await app.dead.count() == 0


async def test_a_group_is_its_task_and_kind_of_error_and_no_later_one(app: Ardiq) -> None:
    errors: dict[int, Exception] = {number: ValueError(f"no {number}") for number in range(230)}
    errors |= {number: KeyError(number) for number in range(230, 240)}

    @app.task(max_retries=0)
    async def fail(number: int) -> None:
        raise errors[number]

    app.burst = True
    jobs = await app.enqueue_many(fail.prepare(number) for number in errors)
    await app.run()
    group = {"name": "fail", "kind": "ValueError"}
    async with browser(dashboard(app, auth="nobody")) as client:
        page = await post(client, app, "requeue-group", **group)
        assert "Run 230 dead letters of fail with ValueError again?" in unescape(page.text)
        (until,) = re.findall(r'name="until" value="(\d+)"', page.text)
        first = min(letter.failed_at for letter in await app.dead.list(limit=240))
        answer = await post(client, app, "requeue-group", **group, until=first - 1, confirmed=1)
        assert notice(await client.get(answer.headers["location"])).startswith("There are no such dead letters")
        answer = await post(client, app, "requeue-group", **group, until=until, confirmed=1)
        assert notice(await client.get(answer.headers["location"])) == "230 queued again."
        assert await app.dead.count() == 10
        assert await do(client, app, "requeue-group", **group) == (
            "There are no such dead letters any more; nothing was changed."
        )
        assert await do(client, app, "discard-group", name="fail", kind="KeyError") == "10 discarded."
        assert (await app.context.inspector.record(jobs[235].id))["state"] == "discarded"
        assert await do(client, app, "discard-group", name="fail") == (
            "Name the group: its task as name, its error as kind."
        )


async def test_a_large_group_is_taken_in_portions(app: Ardiq) -> None:
    @app.task(max_retries=0)
    async def fail() -> None:
        raise ValueError("x" * 3000)

    app.burst = True
    await app.enqueue_many(fail.prepare() for _ in range(620))
    await app.run()
    async with browser(dashboard(app, auth="nobody")) as client:
        page = await post(client, app, "discard-group", name="fail", kind="ValueError")
        assert "Discard 500 dead letters" in page.text
        assert "among the newest 500 of 620; older ones stay" in page.text
        assert await do(client, app, "discard-group", name="fail", kind="ValueError") == "500 discarded."
        assert await do(client, app, "discard-group", name="fail", kind="ValueError") == "120 discarded."


async def test_dead_letters_of_lanes_that_nobody_serves_stay(app: Ardiq, make_app: Any) -> None:
    other = make_app(queue_name=app.queue_name, priorities=["urgent", "default"], burst=True)

    @other.task(max_retries=0)
    async def fail() -> None:
        raise ValueError

    job = await fail.options(priority="urgent").enqueue()
    await other.run()
    async with browser(dashboard(app, auth="nobody")) as client:
        assert "no worker would take it" in await do(client, app, "requeue", id=job.id)
    assert await app.dead.count() == 1


async def test_tasks_and_the_queue_are_paused(app: Ardiq) -> None:
    await fill(app)
    async with browser(dashboard(app, auth="nobody", redact=lambda name: name == "iban")) as client:
        assert (await do(client, app, "pause", name="sync")).startswith("Tasks 'sync': paused")
        assert (await do(client, app, "pause", name="nothing")).endswith("This app has no task 'nothing'.")
        assert (await do(client, app, "pause", name="sync", arg="customer_id=7")).startswith(
            "Tasks 'sync' with customer_id=7: paused"
        )
        assert (await do(client, app, "pause", whole="1")).startswith("The whole queue: paused")
        assert "Name a task" in await do(client, app, "pause")
        assert "Name a task" in await do(client, app, "pause", name="sync", whole="1")
        assert "does not have a parameter" in await do(client, app, "pause", name="sync", arg="nothing=1")
        for secret in ({"arg": "iban=1"}, {"arg": "1=2"}, {"name": "charge", "arg": "1=x"}):
            assert (await post(client, app, "pause", **secret)).status_code == 403
        names = {pause.id for pause in await app.pauses()}
        assert names == {"sync()", "nothing()", "sync(customer_id=7)", "sync(customer_id=99)", "*()"}
        for name in names:
            assert (await do(client, app, "resume", pause=name)).startswith("The pause ended: ")
        assert await do(client, app, "resume", pause="*()") == "There is no such pause any more; nothing was changed."
    assert await app.pauses() == []


async def test_what_a_pause_held_returns(app: Ardiq) -> None:
    @app.task
    async def send() -> None: ...

    await app.pause("send")
    await app.enqueue_many(send.prepare() for _ in range(3))
    app.burst = True
    await app.run()
    async with browser(dashboard(app, auth="nobody")) as client:
        assert await do(client, app, "resume", pause="send()") == "The pause ended: 3 tasks returned."


async def test_the_pause_of_a_workflow_ends(app: Ardiq) -> None:
    ids = await fill(app)
    await app.context.channel().ask(calls.workflow_pause(id=ids["workflow"]))
    async with browser(dashboard(app, auth="nobody")) as client:
        (pause,) = [each.id for each in await app.pauses() if each.workflow]
        assert (await do(client, app, "resume", pause=pause)).startswith("The pause ended: ")
    assert [each.id for each in await app.pauses() if each.workflow] == []


async def test_who_sees_no_arguments_neither_pauses_by_them_nor_ends_such_a_pause(app: Ardiq) -> None:
    await fill(app)
    user = User("ada", may={"view", "pause"})
    async with browser(dashboard(app, auth=lambda request: user)) as client:
        assert (await post(client, app, "pause", arg="customer_id=1")).status_code == 403
        assert (await post(client, app, "resume", pause="sync(customer_id=99)")).status_code == 403
        assert "customer_id=99" not in (await client.get(f"/q/{app.queue_name}/pauses")).text
    assert len(await app.pauses()) == 1


async def test_schedules_are_paused_and_run(app: Ardiq) -> None:
    await fill(app)
    async with browser(dashboard(app, auth="nobody")) as client:
        before = await app.queue_size()
        assert (await do(client, app, "run-schedule", name="nightly")).startswith("Schedule 'nightly' was run")
        assert await app.queue_size() == before + 1
        await do(client, app, "pause-schedule", name="nightly")
        assert (await app.schedules.list())[0].paused
        assert "resume-schedule" in (await client.get(f"/q/{app.queue_name}/schedules")).text
        assert await do(client, app, "resume-schedule", name="nightly") == "Schedule 'nightly' goes on."
        await app.schedules.remove("nightly")
        for action in ("pause-schedule", "resume-schedule", "run-schedule"):
            told = await do(client, app, action, name="nightly")
            assert told == "There is no schedule 'nightly' any more; nothing was changed."


async def test_people_are_led_back_to_pages_of_the_queue_alone(app: Ardiq) -> None:
    pauses = f"/q/{app.queue_name}/pauses"
    async with browser(dashboard(app, auth="nobody")) as client:
        backs = {
            f"/q/{app.queue_name}/tasks?state=held&from=50": None,
            "https://evil.example/": pauses,
            "//evil.example/": pauses,
            "/q/other/tasks": pauses,
            f"/q/{app.queue_name}/../../admin": pauses,
            f"/q/{app.queue_name}/\\evil": pauses,
            f"/q/{app.queue_name}/\r\nset-cookie: a=b": pauses,
        }
        for back, led in backs.items():
            answer = await post(client, app, "pause", name="sync", back=back)
            assert answer.headers["location"] == (led or back)
            assert "a=b" not in answer.headers.get("set-cookie", "")


async def test_a_notice_is_text_and_said_once(app: Ardiq) -> None:
    ids = await fill(app)
    async with browser(dashboard(app, auth="nobody"), "https://testserver") as client:
        answer = await post(client, app, "hurry", id=HOSTILE)
        assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
        page = await client.get(answer.headers["location"])
        assert HOSTILE[:20] in notice(page)
        assert re.findall(r"<script(?! src=)", page.text) == []
        assert 'class="notice' not in (await client.get(answer.headers["location"])).text
        for value in ("", "!", "eA", "////", "K" * 3000):
            answer = await client.get(f"/q/{app.queue_name}/pauses", headers={"cookie": f"ardiq-notice={value}"})
            assert answer.status_code == 200
        question = await post(client, app, "abort", id=[HOSTILE, NAME, ids["dead"]], name=HOSTILE)
        assert re.findall(r"<script(?! src=)", question.text) == []
        assert links(question.text) - {f"/q/{app.queue_name}/tasks"}


async def test_each_action_is_in_the_log(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    ids = await fill(app)
    caplog.set_level(logging.INFO, "ardiq.audit")
    user = User("ada\nmallory", "operator")
    async with browser(dashboard(app, auth=lambda request: user)) as client:
        await do(client, app, "abort", id=[ids["later"], "x\ny"])
        (record,) = [each for each in caplog.records if each.name == "ardiq.audit"]
        assert (record.levelname, record.action, record.user) == ("INFO", "abort", "ada\nmallory")  # type: ignore[attr-defined]
        told = record.getMessage()
        assert f"'{ids['later']}': 'aborted'" in told
        assert r"'ada\nmallory'" in told
        assert "\n" not in told
        caplog.clear()
        assert (await post(client, app, "discard", id=ids["dead"])).status_code == 403
        assert [each.levelname for each in caplog.records if each.name == "ardiq.audit"] == ["WARNING"]
        assert "refused" in caplog.text


async def test_a_server_that_is_away_leaves_it_open(caplog: pytest.LogCaptureFixture) -> None:
    app = Ardiq("redis://127.0.0.1:1", "away", broker_timeout_ms=200)
    async with browser(dashboard(app, auth="nobody")) as client:
        page = await post(client, app, "hurry", id="order")
        assert page.status_code == 503
        assert "It is not known whether this was done" in page.text
        assert (await post(client, app, "hurry.json", id="order")).status_code == 503
        (line, _) = (each.getMessage() for each in caplog.records if each.name == "ardiq.audit")
        assert line.startswith("hurry in queue 'away' by 'anybody' from 127.0.0.1 of ['order'] ended by BrokerError: ")
        large = await post(client, app, "hurry", id="x" * 300_000)
        many = await post(client, app, "hurry", **{f"id{number}": 1 for number in range(1001)})
        assert (large.status_code, many.status_code) == (413, 413)


async def test_a_dead_letter_runs_with_other_arguments_and_the_old_secrets(app: Ardiq) -> None:
    given: list[Any] = []

    @app.task(max_retries=0)
    async def pay(order: Any, card_token: str, *, more: Any = None) -> None:
        given.append((order, card_token, more))
        if order == "bad":
            raise ValueError(HOSTILE)

    app.burst = True
    job = await pay.enqueue("bad", SECRET, more=[HOSTILE, {"token": SECRET, "plain": 1}])
    await app.run()
    async with browser(dashboard(app, auth="nobody")) as client:
        page = await post(client, app, "amend", id=job.id)
        assert page.status_code == 200
        assert SECRET not in page.text
        assert re.findall(r"<script(?! src=)", page.text) == []
        args, kwargs = map(unescape, re.findall(r"<textarea[^>]*>\n(.*?)</textarea>", page.text, re.DOTALL))
        assert json.loads(args) == ["bad", HIDDEN]
        assert json.loads(kwargs) == {"more": [HOSTILE, {"token": HIDDEN, "plain": 1}]}
        for wrong, words in (
            ({"args": "[1,"}, "The arguments in 'args' are not JSON"),
            ({"args": "{}"}, "must be a JSON array"),
            ({"kwargs": "[]"}, "must be a JSON object"),
            ({"args": json.dumps([HIDDEN, "x"])}, "can only stay where it was"),
            ({"kwargs": json.dumps({"more": [HIDDEN]})}, "can only stay where it was"),
            ({"kwargs": json.dumps({"more": [1, {"plain": HIDDEN}]})}, "can only stay where it was"),
            ({"kwargs": json.dumps({"api_key": HIDDEN})}, "can only stay where it was"),
            ({"args": "[1]"}, "card_token"),
            ({"args": "[1, 2]"}, "card_token"),
            ({"kwargs": f'{{"more": {"[" * 70}{"]" * 70}}}'}, "nested too deeply"),
        ):
            fields = {"args": args, "kwargs": kwargs, **wrong}
            page = await post(client, app, "amend", id=job.id, **fields, confirmed=1)
            assert (page.status_code, words in unescape(page.text)) == (200, True), (wrong, page.text)
            (told,) = re.findall(r'name="args".*?>\n(.*?)</textarea>', page.text, re.DOTALL)
            assert unescape(told) == fields["args"], "what was written is lost"
            assert (await post(client, app, "amend.json", id=job.id, **fields)).status_code == 400
        assert await app.dead.count() == 1
        fields = {"args": args.replace("bad", "good"), "kwargs": kwargs}
        answer = await post(client, app, "amend", id=job.id, **fields, confirmed=1)
        assert notice(await client.get(answer.headers["location"])) == f"{job.id}: queued again, with other arguments."
        gone = await post(client, app, "amend", id=job.id, **fields, confirmed=1)
        assert "no dead letter any more" in notice(await client.get(gone.headers["location"]))
        assert "no dead letter any more" in await do(client, app, "amend", id=HOSTILE)
    await app.run()
    assert given[1] == ("good", SECRET, [HOSTILE, {"token": SECRET, "plain": 1}])


async def test_who_sees_no_arguments_changes_none(app: Ardiq) -> None:
    ids = await fill(app)
    user = User("ada", may={"view", "amend"})
    async with browser(dashboard(app, auth=lambda request: user)) as client:
        assert "/amend" not in (await client.get(f"/q/{app.queue_name}/tasks/{ids['dead']}")).text
        for name in ("amend", "amend.json"):
            assert (await post(client, app, name, id=ids["dead"], args="[]", confirmed=1)).status_code == 403


async def test_a_copy_has_the_same_call_and_is_added_once(app: Ardiq) -> None:
    ids = await fill(app)
    async with browser(dashboard(app, auth="nobody")) as client:
        page = (await client.get(f"/q/{app.queue_name}/tasks/{ids['done']}")).text
        (new,) = re.findall(r'name="new_id" value="([a-z2-7]+)"', page)
        answer = await post(client, app, "again", id=ids["done"], new_id=new)
        assert answer.headers["location"] == f"/q/{app.queue_name}/tasks/{new}"
        assert notice(await client.get(answer.headers["location"])) == f"{new}: enqueued."
        assert await do(client, app, "again", id=ids["done"], new_id=new) == f"{new}: there already; nothing was added."
        one, other = [await app.context.inspector.record(each) for each in (ids["done"], new)]
        assert {name: one[name] for name in ("name", "args", "kwargs", "lane")} == {
            name: other[name] for name in ("name", "args", "kwargs", "lane")
        }
        copy = (await post(client, app, "again.json", id=ids["done"])).json()["answers"]
        assert list(copy.values()) == ["enqueued"]
        assert not {new, ids["done"]} & set(copy)
        assert "unknown" in await do(client, app, "again", id=HOSTILE)
        for node in (ids["workflow"], f"{ids['workflow']}~first"):
            assert "belongs to a workflow" in await do(client, app, "again", id=node)
        assert await do(client, app, "again") == "No task was chosen."


async def test_a_signed_call_is_copied_and_changed_with_a_signature(make_app: Any) -> None:
    app = make_app(signing_key="x" * 32, burst=True)
    given: list[str] = []

    @app.task(max_retries=0)
    async def send(to: str) -> None:
        given.append(to)
        if to == "bad":
            raise ValueError

    job = await send.enqueue("bad")
    await app.run()
    async with browser(dashboard(app, auth="nobody")) as client:
        await do(client, app, "again", id=job.id)
        answer = await post(client, app, "amend.json", id=job.id, args='["good"]')
        assert answer.json()["done"] is True
    await app.run()
    assert sorted(given) == ["bad", "bad", "good"]


async def test_a_workflow_is_paused_and_what_failed_runs_again(app: Ardiq) -> None:
    given: list[int] = []

    @app.task(max_retries=0)
    async def step(number: int) -> None:
        given.append(number)
        if number == 1 and given.count(1) == 1:
            raise ValueError

    app.burst, flow = True, Flow()
    first = flow.add(step.prepare(1), name="first")
    flow.add(step.prepare(2), name="then").after(first)
    async with browser(dashboard(app, auth="nobody")) as client:
        job = await app.start(flow)
        assert await do(client, app, "pause-workflow", id=job.id) == f"{job.id}: paused; what runs goes on."
        await app.run()
        assert given == []
        assert await do(client, app, "resume-workflow", id=job.id) == f"{job.id}: goes on."
        assert await do(client, app, "resume-workflow", id=job.id) == f"{job.id}: not paused; nothing was changed."
        await app.run()
        page = (await client.get(f"/q/{app.queue_name}/workflows/{job.id}")).text
        assert "/retry-workflow" in page
        assert "/pause-workflow" not in page
        assert await do(client, app, "retry-workflow", id=job.id) == f"{job.id}: 1 dead letter queued again."
        await app.run()
        assert given == [1, 1, 2]
        gone = f"{job.id}: has no dead letters; nothing was changed."
        assert await do(client, app, "retry-workflow", id=job.id) == gone
        for name in ("pause-workflow", "resume-workflow", "retry-workflow"):
            assert "nothing was changed" in await do(client, app, name, id=HOSTILE)
            assert await do(client, app, name) == "Name the workflow."


async def test_a_task_is_enqueued_by_a_form(app: Ardiq) -> None:
    await fill(app)
    async with browser(dashboard(app, auth="nobody")) as client:
        page = await post(client, app, "enqueue", name=HOSTILE, args=HOSTILE, lane=HOSTILE)
        assert re.findall(r"<script(?! src=)", page.text) == []
        assert set(map(unescape, re.findall(r'<option value="(.*?)">', page.text))) >= {"charge", "sync", NAME}
        (new,) = re.findall(r'name="new_id" value="([a-z2-7]+)"', page.text)
        right = {"name": "sync", "args": "[3]", "kwargs": "", "lane": "", "new_id": new, "confirmed": 1}
        for wrong, words in (
            ({"name": ""}, "Name the task."),
            ({"name": "snyc"}, "There is no task 'snyc' here; did you mean 'sync'?"),
            ({"args": '["x"]'}, "argument 'customer_id' does not fit its annotation"),
            ({"args": "[]"}, "missing a required argument"),
            ({"args": "3"}, "must be a JSON array"),
            ({"kwargs": "3"}, "must be a JSON object"),
            ({"lane": "nowhere"}, "no worker would take it"),
            ({"name": "sync", "lane": HOSTILE}, "no worker would take it"),
        ):
            page = await post(client, app, "enqueue", **right | wrong)
            assert (page.status_code, words in unescape(page.text)) == (200, True), (wrong, page.text)
            json_answer = await post(client, app, "enqueue.json", **right | wrong)
            assert json_answer.status_code == 400
        before = await app.queue_size()
        for told in (f"{new}: enqueued.", f"{new}: there already; nothing was added."):
            answer = await post(client, app, "enqueue", **right)
            assert notice(await client.get(answer.headers["location"])) == told
        assert await app.queue_size() == before + 1
        assert (await app.context.inspector.record(new))["args"] == "[3]"


async def test_a_task_that_the_dashboard_does_not_know_is_enqueued_by_name(app: Ardiq, make_app: Any) -> None:
    stranger = make_app(queue_name=app.queue_name)
    async with browser(dashboard(stranger, auth="nobody")) as client:
        answer = await post(client, app, "enqueue.json", name=NAME, kwargs='{"to": "x"}', new_id="mine")
        assert answer.json()["answers"] == {"mine": "enqueued"}
        assert (await client.get(f"/q/{app.queue_name}/tasks/mine")).status_code == 200


async def test_all_dead_letters_are_discarded_by_who_types_the_name_of_the_queue(app: Ardiq) -> None:
    await fill(app)
    async with browser(dashboard(app, auth="nobody")) as client:
        page = await post(client, app, "purge")
        assert f"Discard all 1 dead letter of queue {app.queue_name}?" in page.text
        for wrong in ("", "default", HOSTILE):
            page = await post(client, app, "purge", queue=wrong, confirmed=1)
            assert "type the name of the queue" in page.text
            assert re.findall(r"<script(?! src=)", page.text) == []
            assert (await post(client, app, "purge.json", queue=wrong)).status_code == 400
        assert await app.dead.count() == 1
        answer = await post(client, app, "purge", queue=app.queue_name, confirmed=1)
        assert notice(await client.get(answer.headers["location"])) == "1 dead letter discarded."
        assert await app.dead.count() == 0
        assert "Discard all…" not in (await client.get(f"/q/{app.queue_name}/dead")).text
