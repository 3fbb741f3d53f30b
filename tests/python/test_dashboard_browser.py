"""The dashboard in Chromium: what is pushed, the keyboard, both themes, two widths, and what a screen reader needs."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from boards import SCREENS, fill

from ardiq import Ardiq, current_task
from ardiq.web import dashboard

playwright = pytest.importorskip("playwright.async_api", reason="`make web` installs what drives a browser")
axe = pytest.importorskip("axe_playwright_python.async_playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path")
SHOWN_S = 30


@asynccontextmanager
async def page_of(app: Ardiq, **options: Any) -> AsyncIterator[tuple[Any, str]]:
    """A page of a browser, and the address of the queue; its console must stay empty."""
    config = uvicorn.Config(dashboard(app, auth="nobody"), port=0, log_level="warning", timeout_graceful_shutdown=1)
    server, said = uvicorn.Server(config), list[str]()
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with playwright.async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = await (await browser.new_context(**options)).new_page()
            page.set_default_timeout(1000 * SHOWN_S)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            yield page, f"http://127.0.0.1:{port}/q/{app.queue_name}/"
            await browser.close()
    finally:
        server.should_exit = True
        await serving
    assert said == []


async def check_access(page: Any) -> None:
    found = (await axe.Axe().run(page)).response["violations"]
    assert [(page.url, each["id"], each["nodes"][0]["html"]) for each in found] == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1380), ("dark", 390)])
async def test_every_screen_can_be_read(app: Ardiq, theme: str, width: int) -> None:
    ids = await fill(app)
    tasks = [f"tasks/{id}" for id in ids.values()]
    async with page_of(app, color_scheme=theme, viewport={"width": width, "height": 900}) as (page, address):
        for path in [*SCREENS, *tasks, f"workflows/{ids['workflow']}"]:
            await page.goto(address + path)
            await page.wait_for_selector("h1")
            if theme == "light" or path in ("", "dead", "schedules", f"tasks/{ids['dead']}"):  # all colors
                await check_access(page)
            assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path


async def test_the_overview_changes_by_itself_and_keys_lead_on(app: Ardiq) -> None:
    @app.task
    async def nothing() -> None: ...

    async with page_of(app) as (page, address):
        await page.goto(address)
        await page.wait_for_selector("#live:has-text('live')")
        job = await nothing.enqueue()
        await page.wait_for_selector("#tiles .kpi:first-child b:text-is('1')")
        await page.keyboard.press("p")
        await nothing.enqueue()
        await page.wait_for_selector("#live:has-text('paused, ')")
        assert await page.inner_text("#tiles .kpi:first-child b") == "1"
        for key in "gt":
            await page.keyboard.press(key)
        await page.wait_for_url("**/tasks")
        await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/tasks/{job.id}")
        await page.keyboard.press("/")
        await page.keyboard.type("noth")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/tasks?q=noth")
        assert await page.locator("table.rows tbody tr").count() == 2
        await page.click("[data-theme-toggle]")
        assert await page.evaluate("document.documentElement.dataset.theme") == "dark"


async def test_a_task_is_seen_running_to_its_end(app: Ardiq) -> None:
    step, end = asyncio.Event(), asyncio.Event()

    @app.task
    async def export() -> None:
        task = current_task()
        task.log("first <b>line</b>")
        task.progress(0.3, "a third")
        await step.wait()
        task.log("second line")
        task.progress(0.8, "nearly")
        await end.wait()

    app.burst = True
    job = await export.enqueue()
    running = asyncio.create_task(app.run())
    async with page_of(app) as (page, address):
        await page.goto(f"{address}tasks/{job.id}")
        await page.wait_for_selector("#live:has-text('live')")
        await page.wait_for_selector("#now:has-text('30 % a third')")
        step.set()
        await page.wait_for_selector("#now:has-text('80 % nearly')")
        await page.wait_for_selector("#lines div:has-text('second line')")
        assert await page.inner_text("#lines") == "first <b>line</b>\nsecond line"
        end.set()
        await page.wait_for_selector("#now .chip.complete")
    await running


async def test_pages_work_without_scripts(app: Ardiq) -> None:
    ids = await fill(app)
    async with page_of(app, java_script_enabled=False) as (page, address):
        await page.goto(address)
        await page.click("nav.side a:has-text('Dead letters')")
        await page.fill(".filters [name=name]", "charge")
        await page.click("button:has-text('Filter')")
        await page.click(f"a[href$='{ids['dead']}']:visible >> nth=-1")
        await page.wait_for_url(f"**/tasks/{ids['dead']}")
        assert "ValueError" in await page.inner_text("main")


@pytest.mark.parametrize("scripts", [True, False])
async def test_people_act_by_keyboard_alone(app: Ardiq, scripts: bool) -> None:
    ids = await fill(app)
    async with page_of(app, java_script_enabled=scripts) as (page, address):

        async def press(*keys: str) -> None:
            for key in keys:
                await page.keyboard.press(key)

        async def reach(selector: str) -> None:
            await page.wait_for_selector(selector)
            for _ in range(60):
                if await page.locator(f"{selector}:focus").count():
                    return
                await press("Tab")
            raise AssertionError(f"Tab does not lead to {selector}")

        await page.goto(f"{address}dead")
        if scripts:
            await press("j", "x")
        else:
            await reach("input[name=id]")
            await press("Space")
        assert await page.is_checked("input[name=id]")
        await reach("button[formaction$=discard]")
        await press("Enter")
        await page.wait_for_selector("h1:has-text('Discard 1 dead letter?')")
        await reach("main a.button")
        await press("Enter")
        await page.wait_for_url("**/dead")
        assert await app.dead.count() == 1
        await page.goto(f"{address}tasks/{ids['dead']}")
        await reach("form[action$=discard] button")
        await press("Enter")
        await reach("button[name=confirmed]")
        if scripts:
            await check_access(page)
        await press("Enter")
        await page.wait_for_selector(f".notice:has-text('{ids['dead']}: discarded.')")
        await page.wait_for_selector("#now .chip.discarded")
        assert await page.locator("form[action$=discard], form[action$=amend]").count() == 0
    assert await app.dead.count() == 0


async def test_what_was_told_stays_when_the_task_ends(app: Ardiq) -> None:
    @app.task
    async def wait() -> None:
        await asyncio.Event().wait()

    app.burst = True
    job = await wait.enqueue()
    running = asyncio.create_task(app.run())
    async with page_of(app) as (page, address):
        await page.goto(f"{address}tasks/{job.id}")
        await page.wait_for_selector("#now .chip.running")
        await page.click("form[action$=abort] button")
        await page.click("button[name=confirmed]")
        await page.wait_for_selector("#now .chip.aborted")
        assert "running, and asked to stop." in await page.inner_text(".notice")
    await running


@pytest.mark.parametrize(
    ("theme", "width", "scripts"), [("light", 1380, True), ("dark", 390, True), ("light", 390, False)]
)
async def test_arguments_are_written_and_mended(app: Ardiq, theme: str, width: int, scripts: bool) -> None:
    ids, shown = await fill(app), {"width": width, "height": 900}
    async with page_of(app, color_scheme=theme, viewport=shown, java_script_enabled=scripts) as (page, address):
        await page.goto(f"{address}tasks/{ids['dead']}")
        await page.click("form[action$=amend] button")
        await page.fill("[name=args]", "[1,")
        await page.click("button[name=confirmed]")
        await page.wait_for_selector(".undone:has-text('are not JSON')")
        assert await page.input_value("[name=args]") == "[1,"
        if scripts:
            await check_access(page)
            assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        await page.fill("[name=args]", '["good", "●●●●●● redacted"]')
        await page.click("button[name=confirmed]")
        await page.wait_for_selector(".notice:has-text('queued again, with other arguments')")
        await page.goto(f"{address}tasks/{ids['done']}")
        await page.click("form[action$=again] button")
        await page.wait_for_selector(".notice:has-text('enqueued.')")
        assert await page.inner_text("#now .chip") == "… queued"
        await page.goto(f"{address}tasks")
        await page.click("form[action$=enqueue] button")
        await page.fill("[name=name]", "sync")
        await page.fill("[name=args]", "[7]")
        if scripts:
            await check_access(page)
            assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        await page.click("button[name=confirmed]")
        await page.wait_for_selector("h1:has-text('sync')")
    assert await app.dead.count() == 0
