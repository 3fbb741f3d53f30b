"""What the dashboard shows, of real tasks: its pages and their twins, what they cost the server, live changes."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from boards import HOSTILE, NAME, SCREENS, SECRET, STATES, browser, calls, fill, functions, links
from documents import ROOT
from fastapi import FastAPI
from helpers import eventually
from starlette.applications import Starlette
from starlette.routing import Mount

import ardiq.web
from ardiq import Ardiq, current_task
from ardiq.web import User, dashboard
from ardiq.web import _routes as routes
from ardiq.web._live import follow

STATIC = Path(ardiq.web.__file__).parent / "static"
LARGEST_BYTES = 150_000


def screens(ids: dict[str, str]) -> list[str]:
    """The paths of all screens below a queue."""
    tasks = [f"tasks/{id}" for id in ids.values()]
    return [*SCREENS, *(f"tasks?state={state}" for state in STATES), *tasks, f"workflows/{ids['workflow']}"]


def twin(path: str) -> str:
    """The path of what programs get instead of a page."""
    name, mark, words = path.partition("?")
    return f"{name or 'overview'}.json{mark}{words}"


async def test_every_screen_shows_what_is_there(app: Ardiq) -> None:
    ids = await fill(app)
    async with browser(dashboard(app, auth="nobody")) as client:

        async def get(path: str) -> str:
            answer = await client.get(f"/q/{app.queue_name}/{path}")
            assert answer.status_code == 200, (path, answer.text)
            return answer.text

        async def data(path: str) -> Any:
            return json.loads(await get(twin(path)))

        for path in screens(ids):
            assert "<h1>" in await get(path)
            assert (await data(path))["queue"] == app.queue_name
        overview = await data("")
        assert (overview["counts"]["dead"], overview["counts"]["scheduled"]) == (1, 1)
        assert [(group["name"], group["kind"]) for group in overview["groups"]] == [("charge", "ValueError")]
        told = [point["what"] for point in overview["attention"]]
        assert told == ["No worker is alive.", "charge is failing."]
        assert {task["name"] for task in (await data("tasks"))["tasks"]} == {NAME}
        assert [task["id"] for task in (await data("tasks?state=scheduled"))["tasks"]] == [ids["later"]]
        assert [task["id"] for task in (await data("dead"))["tasks"]] == [ids["dead"]]
        done = await data(f"tasks/{ids['done']}")
        assert [name for name, _ in done["arguments"]] == ["order", "card_token", "nested"]
        assert (done["state"], done["progress"]["fraction"], done["log"]) == ("complete", 0.5, [HOSTILE])
        dead = await data(f"tasks/{ids['dead']}")
        assert [(each["try"], each["state"]) for each in dead["attempts"]] == [(1, "failed")]
        assert "ValueError" in dead["traceback"]
        assert (await data(f"tasks/{ids['later']}"))["attempts"] == []
        assert [each["id"] for each in (await data("workflows"))["workflows"]] == [ids["workflow"]]
        workflow = await data(f"workflows/{ids['workflow']}")
        assert [(node["name"], node["after"]) for node in workflow["nodes"]] == [
            ("first", {}),
            ("then", {"first": "fail"}),
        ]
        assert [schedule["name"] for schedule in (await data("schedules"))["schedules"]] == ["nightly"]
        assert [pause["id"] for pause in (await data("pauses"))["pauses"]] == ["sync(customer_id=99)"]
        assert [(limit["name"], limit["concurrency"]) for limit in (await data("limits"))["limits"]] == [("partner", 2)]


async def test_what_is_hostile_is_text(app: Ardiq) -> None:
    ids = await fill(app)
    async with browser(dashboard(app, auth="nobody")) as client:
        for path in screens(ids):
            page = (await client.get(f"/q/{app.queue_name}/{path}")).text
            assert re.findall(r"<script(?! src=)", page) == [], path
            assert re.findall(r"<[^>]*\s(?:style|on\w+)=", page) == [], path
            assert "{{" not in page.replace("&#39;{{7*7}}", "").replace("'{{7*7}}", "").replace("{{7*7}}", "")
            assert SECRET not in page, path
            assert SECRET not in (await client.get(f"/q/{app.queue_name}/{twin(path)}")).text, path


async def test_a_page_asks_the_server_at_most_twice(app: Ardiq) -> None:
    ids = await fill(app)
    for path in [*screens(ids), "tasks?state=running", "dead?name=charge&q=bad", "limits?name=partner"]:
        for each in (path, twin(path)):
            async with browser(dashboard(app, auth="nobody")) as client:  # without a sample of earlier pages
                before, scans = functions(app), calls(app)
                assert (await client.get(f"/q/{app.queue_name}/{each}")).status_code == 200, each
                assert 1 <= functions(app) - before <= 2, each
            assert [name for name in ("scan", "keys") if calls(app).get(name, 0) > scans.get(name, 0)] == [], each


async def test_pages_share_what_they_ask(app: Ardiq) -> None:
    async with browser(dashboard(app, auth="nobody")) as client:
        before = functions(app)
        pages = await asyncio.gather(*(client.get(f"/q/{app.queue_name}/") for _ in range(20)))
        assert {page.status_code for page in pages} == {200}
        assert functions(app) - before == 2


@pytest.mark.parametrize("kind", ["fastapi", "starlette", "alone"])
async def test_all_links_lead_somewhere_under_each_mount(app: Ardiq, kind: str) -> None:
    ids = await fill(app)
    board: Any = dashboard(app, auth="nobody")
    root = "" if kind == "alone" else "/back office/ardiq"
    if kind == "fastapi":
        outer = FastAPI()
        outer.mount(root, board)
        board = outer
    elif kind == "starlette":
        board = Starlette(routes=[Mount(root, board)])
    async with browser(board) as client:
        seen: set[str] = set()
        left = {f"{root}/q/{app.queue_name}/{path}" for path in screens(ids)}
        while left:
            address = left.pop()
            answer = await client.get(address, follow_redirects=True)
            assert answer.status_code == 200, address
            seen.add(address)
            if "html" in answer.headers["content-type"]:
                found = {
                    str(httpx.URL(f"http://testserver{address}").join(link).raw_path, "ascii")
                    for link in links(answer.text)
                }
                assert all(link.startswith(root.replace(" ", "%20")) for link in found)
                left |= found - seen
        assert len(seen) > 40


async def test_a_task_with_any_id_has_a_page(app: Ardiq) -> None:
    @app.task
    async def nothing() -> None: ...

    ids = ["a/b", "a?b#c", "ü €", "%2F", "a~b", "<b>", "tasks"]
    for id in ids:
        await nothing.options(task_id=id).enqueue()
    async with browser(dashboard(app, auth="nobody")) as client:
        page = (await client.get(f"/q/{app.queue_name}/tasks")).text
        assert len([link for link in links(page) if "/tasks/" in link]) == len(ids)
        for link in links(page):
            if "/tasks/" in link:
                answer = await client.get(link)
                assert answer.status_code == 200
                assert any(
                    f"nothing {id}" in answer.text for id in ("a/b", "a?b#c", "ü €", "%2F", "a~b", "&lt;b&gt;", "tasks")
                )


async def test_numbers_stay_exact_and_pages_small(app: Ardiq) -> None:
    @app.task
    async def large(number: int, text: str = "") -> list[str]:
        return ["x" * 1000] * 3000

    app.burst = True
    job = await large.enqueue(90071992547409931)
    other = await large.enqueue(2**62, text="y" * 100_000)
    await app.run()
    async with browser(dashboard(app, auth="nobody")) as client:
        page = (await client.get(f"/q/{app.queue_name}/tasks/{job.id}")).text
        assert "90071992547409931" in page
        assert "bytes, too many to show" in page
        page = (await client.get(f"/q/{app.queue_name}/tasks/{other.id}")).text
        assert str(2**62) in page
        assert len(page) < 50_000


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("tasks?state=nonsense", 400),
        ("dead?from=-1", 400),
        ("dead?from=99999999999999999999999999", 400),
        ("tasks?arg=customer_id", 400),
        ("tasks?arg=api_key=1", 403),
        ("tasks/nobody-has-this", 404),
        ("workflows/nobody-has-this", 404),
        ("no-such-screen", 404),
        ("../other/", 404),
    ],
)
async def test_what_cannot_be_shown_is_refused(app: Ardiq, path: str, status: int) -> None:
    async with browser(dashboard(app, auth="nobody")) as client:
        assert (await client.get(f"/q/{app.queue_name}/{path}")).status_code == status


async def test_a_server_that_is_away_is_said_so() -> None:
    app = Ardiq("redis://127.0.0.1:1", "away", broker_timeout_ms=200)
    async with browser(dashboard(app, auth="nobody")) as client:
        page, data = await client.get("/q/away/"), await client.get("/q/away/overview.json")
        assert (page.status_code, data.status_code) == (503, 503)
        assert "does not answer" in page.text
        assert "does not answer" in data.json()["error"]
        assert (await client.get("/healthz")).status_code == 200
        metrics = await client.get("/metrics")
        assert 'ardiq_queue_known{queue="away"} 0' in metrics.text.splitlines()


async def test_files_are_small_and_may_be_kept(app: Ardiq) -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) <= LARGEST_BYTES
    async with browser(dashboard(app, auth="nobody")) as client:
        page = (await client.get(f"/q/{app.queue_name}/")).text
        files = [link for link in links(page) if "/static/" in link]
        assert len(files) == 2
        for file in files:
            answer = await client.get(file)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
        assert (await client.get("/static/..%2f_app.py")).status_code == 404


async def test_ten_browsers_cost_what_one_does(app: Ardiq) -> None:
    @app.task
    async def nothing() -> None: ...

    board = dashboard(app, auth="nobody")
    live = board.live(app.queue_name)

    async def is_gone() -> bool:
        return False

    streams = [live.events(is_gone) for _ in range(10)]

    async def until(stream: Any, text: str) -> None:
        async for event in stream:
            assert event.count("\n\n") == 1
            if text in event:
                return

    before = functions(app)
    await asyncio.gather(*(until(stream, '"id": "lanes"') for stream in streams))
    assert functions(app) - before <= 4  # of ten browsers that ask by themselves it would be twenty
    await nothing.enqueue()
    await asyncio.gather(*(until(stream, "<b>1</b>") for stream in streams))
    assert live.listeners == 10
    for stream in streams:
        await stream.aclose()
    assert live.listeners == 0


async def test_only_the_queues_that_are_named_are_shown(app: Ardiq) -> None:
    names = [app.queue_name, f"{app.queue_name}-mail"]
    board = dashboard(app, auth=lambda request: User("ada", "viewer"), queues=names)
    async with browser(board) as client:
        home = (await client.get("/")).text
        assert {f"/q/{name}/" for name in names} <= links(home)
        assert (await client.get(f"/q/{names[1]}/")).status_code == 200
        assert (await client.get("/q/other/")).status_code == 404


async def test_a_task_is_followed_until_it_ends(app: Ardiq) -> None:
    go_on = asyncio.Event()

    @app.task
    async def export() -> None:
        task = current_task()
        task.log(HOSTILE)
        task.progress(0.25, HOSTILE)
        await go_on.wait()

    job = await export.enqueue()
    told = {True: list[tuple[str, Any]](), False: list[tuple[str, Any]]()}

    async def listen(with_payloads: bool) -> None:
        async for event in follow(app, job.id, with_payloads):
            assert event.count("\n\n") == 1
            if event.startswith("event: "):
                kind, data = event.removeprefix("event: ").split("\ndata: ")
                told[with_payloads].append((kind, json.loads(data)))

    def has(kind: str) -> bool:
        return any(each == kind for each, _ in told[True])

    async with asyncio.TaskGroup() as group:
        group.create_task(listen(True))
        group.create_task(listen(False))
        await eventually(lambda: has("fragment"))
        app.burst = True
        running = group.create_task(app.run())
        await eventually(lambda: has("lines") and "25 %" in str(told[True]) and "25 %" in str(told[False]))
        go_on.set()
        await running
    assert [event for event in told[True] if event[0] == "lines"] == [("lines", [HOSTILE])]
    assert {kind for kind, _ in told[False]} == {"fragment", "end"}
    assert "onload" not in str(told[False])
    assert all("<script>" not in data["html"] for kind, data in told[True] if kind == "fragment")
    assert told[True][-1] == told[False][-1] == ("end", {})


def test_who_only_imports_ardiq_gets_none_of_it() -> None:
    program = "import sys, ardiq, ardiq.cli\nprint({'starlette', 'jinja2', 'uvicorn', 'ardiq.web'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


def test_the_guide_has_every_screen() -> None:
    table = (ROOT / "docs/dashboard.md").read_text().split("| page below")[1]
    told = re.findall(r"^\| (?:`([^`]+)`|\(none\)) \|", table, re.MULTILINE)
    assert told == [screen.path.replace("{id:path}", "ID") for screen in routes.SCREENS]
