"""Dependencies of tasks: what an attempt makes before it calls the function, and cleans up after it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import fastapi
import httpx
import pytest
from helpers import SOON_S, eventually, result_of, task_module, working

from ardiq import Ardiq, Depends, InvalidArguments
from ardiq.embedded import Server
from ardiq.testing import inline, override

seen: list[Any] = []
once: dict[str, Any] = {"max_retries": 0}


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def get_host() -> str:
    seen.append("host")
    return "mail"


async def get_port(host: Annotated[str, Depends(get_host)]) -> int:
    return len(host)


async def get_line(host: str = Depends(get_host), port: int = Depends(get_port)) -> AsyncIterator[str]:
    seen.append("open line")
    try:
        yield f"{host}:{port}"
    except BaseException as error:
        seen.append(type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0)
        seen.append("close line")


@asynccontextmanager
async def session(line: str = Depends(get_line)) -> AsyncIterator[str]:
    try:
        yield f"session of {line}"
    finally:
        seen.append("close session")


class Lock:
    def __init__(self, host: str = Depends(get_host)) -> None:
        self.host = host

    def __enter__(self) -> "Lock":
        seen.append("lock")
        return self

    def __exit__(self, *error: object) -> None:
        seen.append("unlock")


def get_file() -> Iterator[str]:
    try:
        yield "file"
    finally:
        seen.append("close file")


@contextmanager
def directory(file: str = Depends(get_file)) -> Iterator[str]:
    yield f"directory of {file}"
    seen.append("close directory")


async def on_a_worker(app: Ardiq, run: Callable[[], Any]) -> Any:
    async with working(app):
        return await result_of(await run())


async def test_on_the_loop(app: Ardiq) -> None:
    """Whatever makes it, wherever the parameter stands; once an attempt; cleaned up in reverse order."""

    @app.task(**once)
    async def send(
        lock: Annotated[Lock, Depends(Lock)],
        to: str,
        within: str = Depends(session),
        n: int = 2,
        *,
        p: int = Depends(get_port),
    ) -> list[Any]:
        seen.append("run")
        return [to, within, n, p, lock.host]

    result = await on_a_worker(app, lambda: send.enqueue("ada", n=3))  # type: ignore[call-arg, arg-type]
    assert result.value == ["ada", "session of mail:4", 3, 4, "mail"]
    assert seen == ["host", "lock", "open line", "run", "close session", "close line", "unlock"]
    async with inline(app):
        assert (await (await send.enqueue("bob", 5)).result()).value[:3] == ["bob", "session of mail:4", 5]  # type: ignore[call-arg, arg-type]


async def test_in_a_thread(app: Ardiq) -> None:
    @app.task(**once)
    def store(what: str, where: str = Depends(directory), host: str = Depends(get_host)) -> str:
        return f"{what} in {where} at {host}"

    result = await on_a_worker(app, lambda: store.enqueue("it"))
    assert result.value == "it in directory of file at mail"
    assert seen == ["host", "close directory", "close file"]


async def test_in_a_process(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import os
        from ardiq import Ardiq, Depends

        app = Ardiq({url!r}, queue_name={queue!r}, concurrency=2)

        def get_pid():
            yield os.getpid()

        @app.task(executor="process", max_retries=0)
        def work(number: int, pid: int = Depends(get_pid)) -> list:
            return [number, pid == os.getpid(), pid]
    """
    with task_module(source, server, tmp_path, monkeypatch) as module:
        result = await on_a_worker(module.app, lambda: module.work.enqueue(7))
        assert result.value[:2] == [7, True]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_failure(app: Ardiq, is_async: bool) -> None:
    """It is cleaned up; a dependency that swallows the error does not make it a success."""

    def get_swallowing() -> Iterator[int]:
        try:
            yield 1
        except ValueError:
            seen.append("swallowed")

    async def fail(number: int, file: str = Depends(get_file), one: int = Depends(get_swallowing)) -> None:
        raise ValueError(number + one)

    def fail_sync(number: int, file: str = Depends(get_file), one: int = Depends(get_swallowing)) -> None:
        raise ValueError(number + one)

    task: Any = app.task(**once)(fail if is_async else fail_sync)
    result = await on_a_worker(app, lambda: task.enqueue(1))
    assert not result.success
    assert result.value == "ValueError(2)"
    assert seen == ["swallowed", "close file"]


async def test_each_attempt_makes_its_own(app: Ardiq) -> None:
    @app.task(max_retries=1, backoff_ms=1)
    async def fail(line: str = Depends(get_line)) -> None:
        raise ValueError(line)

    await on_a_worker(app, fail.enqueue)
    assert seen == ["host", "open line", "ValueError", "close line"] * 2


async def test_a_time_limit_and_an_abort(app: Ardiq) -> None:
    @app.task(timeout=0.5, **once)
    async def wait(line: str = Depends(get_line)) -> None:
        await asyncio.sleep(SOON_S)

    @app.task(**once)
    async def wait_long(line: str = Depends(get_line)) -> None:
        seen.append("run")
        await asyncio.sleep(SOON_S)

    async with working(app):
        assert "timed out" in str((await result_of(await wait.enqueue())).value)
        assert seen == ["host", "open line", "CancelledError", "close line"]
        job = await wait_long.enqueue()
        await eventually(lambda: "run" in seen)
        await job.abort()
        await eventually(lambda: seen.count("close line") == 2)


async def test_a_call_cannot_give_it(app: Ardiq) -> None:
    @app.task
    async def send(to: str, host: str = Depends(get_host)) -> str:
        return f"{to} {host}"

    with pytest.raises(TypeError, match=r"'send'.*unexpected keyword argument 'host'"):
        await send.enqueue("ada", host="mine")
    with pytest.raises(TypeError, match=r"'send'.*too many positional arguments"):
        await send.enqueue("ada", "mine")
    with pytest.raises((TypeError, InvalidArguments), match="to"):
        await send.enqueue(1)  # type: ignore[arg-type]
    assert await send("ada") == "ada mail"
    assert await send("ada", host="mine") == "ada mine"
    assert seen == ["host"]


async def test_an_override(app: Ardiq) -> None:
    def get_other(file: str = Depends(get_file)) -> str:
        return f"other {file}"

    @app.task
    async def send(port: int = Depends(get_port), host: str = Depends(get_host)) -> list[Any]:
        return [port, host]

    @app.task
    def send_sync(host: str = Depends(get_host)) -> str:
        return host

    async with inline(app):
        with override(get_host, get_other):
            assert (await (await send.enqueue()).result()).value == [10, "other file"]
            with override(get_host, lambda: "inner"):
                assert await send() == [5, "inner"]
            assert send_sync() == "other file"
        assert await send() == [4, "mail"]
        with (
            override(get_host, asyncio.Event().wait),
            pytest.raises(TypeError, match=r"in the place of get_host, is async"),
        ):
            send_sync()
    refused = pytest.raises(TypeError, match=r"the override of get_host: .* in a circle: get_host needs get_port needs")
    with refused, override(get_host, get_port):
        pass


def test_refusals(app: Ardiq) -> None:
    """One error where the task is declared, which names the task and the parameter."""

    def left(right: Any) -> int:
        return 0

    def right(left: int = Depends(left)) -> int:
        return 0

    left.__defaults__ = (Depends(right),)

    async def circle(x: int, one: int = Depends(left)) -> None: ...

    def needy(what: str) -> None: ...

    async def lacking(x: int, two: None = Depends(needy)) -> None: ...

    def asking(q: str = fastapi.Header()) -> None: ...

    async def of_requests(x: int, three: None = fastapi.Depends(asking)) -> None: ...

    def waiting(x: int, four: str = Depends(session)) -> None: ...

    async def unknown(x: int, five: "Annotated[Unknown, Depends(get_host)]") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    async def early(host: str = Depends(get_host), /) -> None: ...

    for function, message in {
        circle: r"task 'circle': parameter 'one'.* in a circle: \S*left needs \S*right needs \S*left",
        lacking: r"task 'lacking': parameter 'two'.*'what' of \S*needy cannot be resolved",
        of_requests: r"task 'of_requests': parameter 'three'.*'q' of \S*asking cannot be resolved",
        waiting: r"task 'waiting': parameter 'four': session is async.*`async def`",
        unknown: r"task 'unknown': parameter 'five'.*define what it names",
        early: r"task 'early': parameter 'host'.*before a `/`",
    }.items():
        with pytest.raises(TypeError, match=message):
            app.task(function)  # type: ignore[type-var]
    assert app.tasks == []
    with pytest.raises(TypeError, match="not int"):
        Depends(1)  # type: ignore[arg-type]


async def test_others_stay_as_they_are(app: Ardiq) -> None:
    async def plain(x: int) -> int:
        return x

    assert app.task(plain).fn is plain


async def test_with_fastapi(app: Ardiq) -> None:
    """Routes and tasks share providers, marked for FastAPI."""

    async def get_greeting(host: Annotated[str, fastapi.Depends(get_host)]) -> AsyncIterator[str]:
        yield f"hello from {host}"
        seen.append("close")

    @app.task
    async def greet(name: str, greeting: str = Depends(get_greeting), lock: Lock = Depends(Lock)) -> str:
        return f"{greeting}, {name}, {lock.host}"

    @app.task
    async def greet_too(name: str, greeting: str = fastapi.Depends(get_greeting)) -> str:
        return f"{greeting}, {name}"

    web = fastapi.FastAPI()

    @web.get("/")
    async def index(greeting: Annotated[str, fastapi.Depends(get_greeting)]) -> str:
        return greeting

    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://web") as client:
        assert (await client.get("/")).json() == "hello from mail"
    async with inline(app):
        assert (await (await greet.enqueue("Ada")).result()).value == "hello from mail, Ada, mail"
        assert (await (await greet_too.enqueue("Ada")).result()).value == "hello from mail, Ada"
    assert seen.count("close") == 3


async def test_of_schedules_and_batches(app: Ardiq) -> None:
    from ardiq import Batch

    @app.cron("0 0 * * *")
    async def nightly(host: Annotated[str, Depends(get_host)]) -> str:
        return host

    @app.task(batch=Batch(size=2, wait=0.01), **once)
    async def insert(rows: list[int], host: str = Depends(get_host)) -> list[str]:
        return [f"{row} {host}" for row in rows]

    async with working(app):
        assert (await result_of(await nightly.enqueue())).value == "mail"  # type: ignore[call-arg]
        assert (await result_of(await insert.enqueue(1))).value == "1 mail"


async def test_arguments_are_converted(app: Ardiq) -> None:
    """Also by an annotation that names what is defined after the task."""
    from datetime import date

    @app.task(**once)
    async def when(day: "Day", host: str = Depends(get_host)) -> bool:  # type: ignore[name-defined]  # noqa: F821
        return type(day) is date

    globals()["Day"] = date
    assert (await on_a_worker(app, lambda: when.enqueue(date(2026, 12, 1)))).value is True
