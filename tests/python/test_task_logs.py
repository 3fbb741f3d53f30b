"""What log lines know of their task, and the log of the task itself."""

import asyncio
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, result_of, task_module, working
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import use_span

from ardiq import Ardiq, Retry, Snooze
from ardiq.embedded import Server
from ardiq.logs import FIELDS, DevFormatter, TaskFields, TaskHandler, add_task

DOCS = Path(__file__).parents[2] / "docs/logging.md"


class Kept(logging.Handler):
    """Keeps the fields of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(TaskFields())
        self.fields: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.fields.append({name: vars(record)[name] for name in FIELDS})


@pytest.fixture
def own() -> Iterator[tuple[logging.Logger, Kept]]:
    """A logger, and what it was told."""
    logger, kept = logging.getLogger("own"), Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.DEBUG)
    yield logger, kept
    logger.removeHandler(kept)
    logger.setLevel(logging.NOTSET)


async def test_every_record_of_a_task_knows_it(app: Ardiq, own: tuple[logging.Logger, Kept]) -> None:
    logger, kept = own
    provider = TracerProvider()

    @app.task
    async def on_loop() -> None:
        logger.info("here")

    @app.task
    def on_thread() -> None:
        with use_span(provider.get_tracer("test").start_span("inside")) as span:
            spans.append(span.get_span_context())
            logger.info("here")

    spans: list[Any] = []
    logger.info("outside")
    jobs = [await on_loop.enqueue(), await on_thread.enqueue()]
    await drain(app)
    outside, first, second = sorted(kept.fields, key=lambda fields: fields["task"])
    assert set(outside.values()) == {""}
    common = {"attempt": 1, "queue": app.queue_name, "worker": app.worker_id, "lane": "default", "schedule": ""}
    assert first == {"task": "on_loop", "task_id": jobs[0].id, "trace_id": "", "span_id": "", **common}
    assert second == {
        "task": "on_thread", "task_id": jobs[1].id, **common,
        "trace_id": f"{spans[0].trace_id:032x}", "span_id": f"{spans[0].span_id:016x}",
    }  # fmt: skip


async def test_an_occurrence_knows_its_schedule(app: Ardiq, own: tuple[logging.Logger, Kept]) -> None:
    logger, kept = own

    @app.cron("* * * * * *")
    async def tick() -> None:
        logger.info("here")

    async with working(app):
        await eventually(lambda: kept.fields)
    assert kept.fields[0]["schedule"] == "tick"


async def test_for_structlog(app: Ardiq) -> None:
    @app.task
    async def work() -> dict[str, Any]:
        return dict(add_task(None, "info", {"event": "here", "lane": "mine"}))

    job = await work.enqueue()
    await drain(app)
    assert dict(add_task(None, "info", {"event": "here"})) == {"event": "here"}
    told = await job.value()
    assert (told["event"], told["lane"], told["task_id"], told["attempt"]) == ("here", "mine", job.id, 1)


@pytest.mark.parametrize("colours", [False, True])
def test_a_short_line(colours: bool) -> None:
    record = logging.LogRecord("shop", logging.ERROR, "", 0, "no %s", ("luck",), None)
    vars(record).update(task="resize", task_id="3ptlxxxxx", attempt=2, queue="default", order=7)
    line = DevFormatter(colours).format(record)
    assert line[13:] == ("\033[31mERROR  \033[0m" if colours else "ERROR  ") + "  resize 3ptlxx #2  no luck  order=7"
    record = logging.LogRecord("shop", logging.INFO, "", 0, "fine", None, (OSError, OSError("full"), None))
    assert DevFormatter(colours).format(record)[13:] == "INFO     fine\nOSError: full"


async def test_the_log_of_a_task_gets_what_it_logs(make_app: Callable[..., Ardiq]) -> None:
    app, logger = make_app(task_logs="info"), logging.getLogger("own")
    logger.setLevel(logging.DEBUG)

    @app.task
    async def on_loop() -> None:
        logger.debug("too low")
        logger.info("%d rows", 7)
        try:
            raise OSError("full")
        except OSError:
            logger.exception("no room")
        logging.getLogger("ardiq").warning("not of the task")

    @app.task
    def on_thread() -> None:
        logger.warning("from a thread")

    jobs = [await on_loop.enqueue(), await on_thread.enqueue()]
    async with working(app):
        for job in jobs:
            await result_of(job)
    assert await jobs[0].logs() == ["INFO 7 rows", "ERROR no room: OSError('full')"]
    assert await jobs[1].logs() == ["WARNING from a thread"]
    logger.warning("outside")
    assert not [each for each in logging.getLogger().handlers if isinstance(each, TaskHandler)], "it ends with the run"
    logger.setLevel(logging.NOTSET)


async def test_the_log_of_a_task_in_a_child(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import logging
        from ardiq import Ardiq

        app = Ardiq({url!r}, queue_name={queue!r}, task_logs="warning")

        @app.task(executor="process")
        def speak() -> None:
            logging.getLogger("own").warning("from a child")
        """
    with task_module(source, server, tmp_path, monkeypatch) as module:
        job = await module.speak.enqueue()
        await drain(module.app)
        assert await job.logs() == ["WARNING from a child"]


async def test_each_line_about_an_attempt_has_a_word_for_programs(app: Ardiq, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ardiq")

    @app.task(max_retries=1, backoff_ms=1)
    async def fails() -> None:
        raise ValueError("no")

    @app.task(max_retries=1)
    async def asks() -> None:
        if (number := len(asked)) < 2:
            asked.append(number)
            raise Retry(0) if number == 0 else Snooze(0)

    @app.task
    async def hangs() -> None:
        await asyncio.sleep(SOON_S)

    asked: list[int] = []
    aborted = await hangs.enqueue()
    jobs = [await fails.enqueue(), await asks.enqueue()]
    async with working(app):
        for job in jobs:
            await result_of(job)
        await aborted.abort()
        await result_of(aborted)
    words = [vars(record).get("event_name") for record in caplog.records]
    told = DOCS.read_text().partition("| `event_name` |")[2].partition("\n\n")[0]
    seen = {word for word in words if word}
    assert seen == {"started", "succeeded", "retried", "failed", "snoozed", "aborted"}
    assert all(f"| `{word}` |" in told for word in seen | {"limited", "waits", "unknown", "refused", "lost"})


def test_a_stream_without_a_terminal_has_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    record = logging.LogRecord("shop", logging.ERROR, "", 0, "no", None, None)
    assert "\033" not in DevFormatter().format(record)
