"""Views of Django and Flask that enqueue and wait, and Django's transactions, with the real packages on SQLite."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client
from django.urls import path
from flask import Flask
from helpers import SOON_S, Script

from ardiq import Ardiq, BrokerError, Task
from ardiq.django import enqueue_on_commit
from ardiq.testing import inline, worker

app = Ardiq("redis://127.0.0.1:1", "web")


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task(max_retries=0)
def fail() -> None:
    raise ValueError("no")


def django_waits(request: HttpRequest) -> HttpResponse:
    job = add.enqueue_sync(int(request.GET["a"]), 1)
    result = job.result_sync(timeout=SOON_S)
    assert result is not None
    return JsonResponse({"value": result.value, "status": asyncio.run(job.status())})


async def django_awaits(request: HttpRequest) -> HttpResponse:
    job = await add.enqueue(int(request.GET["a"]), 1)
    blocking = add.request_sync(40, 2, timeout=SOON_S)  # within the running loop, too
    result = await job.result(timeout=SOON_S)
    assert result is not None
    return JsonResponse({"value": result.value, "blocking": blocking})


def django_stores(request: HttpRequest) -> HttpResponse:
    job = enqueue_on_commit(add.prepare(1, 1))
    if "fail" in request.GET:
        raise ZeroDivisionError
    return JsonResponse({"id": job.id, "status": asyncio.run(job.status())})


urlpatterns = [path("waits", django_waits), path("awaits", django_awaits), path("stores", django_stores)]

flask = Flask("shop")


@flask.get("/waits/<int:number>")
def flask_waits(number: int) -> dict[str, Any]:
    return {"value": add.request_sync(number, 1, timeout=SOON_S)}


@flask.get("/many")
def flask_many() -> list[str]:
    return [job.id for job in app.enqueue_many_sync(add.prepare(number, 1) for number in range(3))]


@pytest.fixture(scope="module", autouse=True)
def databases(tmp_path_factory: pytest.TempPathFactory) -> None:
    where: Path = tmp_path_factory.mktemp("databases")
    engine = {"ENGINE": "django.db.backends.sqlite3", "ATOMIC_REQUESTS": True}
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={name: {**engine, "NAME": str(where / f"{name}.db")} for name in ("default", "other")},
        ROOT_URLCONF=__name__,
        SECRET_KEY="a secret of this test",
    )
    django.setup()


@pytest.fixture
def ardiq_app(ardiq_server: str) -> Iterator[Ardiq]:
    from ardiq.testing import on_server

    with on_server(app, ardiq_server):
        yield app
    connections.close_all()


@pytest.fixture
def size(ardiq_app: Ardiq) -> Callable[[], int]:
    return lambda: asyncio.run(ardiq_app.queue_size())


@pytest.mark.usefixtures("ardiq_worker")
def test_views_that_wait() -> None:
    client, other = Client(), flask.test_client()
    assert client.get("/waits?a=1").json() == {"value": 2, "status": "complete"}
    assert other.get("/waits/2").json == {"value": 3}
    ids = other.get("/many").json
    assert [app.result_sync(task_id, timeout=SOON_S).value for task_id in ids] == [1, 2, 3]  # type: ignore[union-attr]


@pytest.mark.usefixtures("ardiq_worker")
def test_views_in_many_threads() -> None:
    def call(number: int) -> int:
        try:
            answers = (Client().get(f"/waits?a={number}").json(), flask.test_client().get(f"/waits/{number}").json)
        finally:
            connections.close_all()
        return sum(answer["value"] for answer in answers)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(call, range(40))) == [2 * number + 2 for number in range(40)]


@pytest.mark.usefixtures("ardiq_worker")
async def test_an_async_view() -> None:
    # Views with ATOMIC_REQUESTS must be sync; without, Django runs this one on the loop.
    settings.DATABASES["default"]["ATOMIC_REQUESTS"] = settings.DATABASES["other"]["ATOMIC_REQUESTS"] = False
    try:
        response = await AsyncClient().get("/awaits?a=1")
    finally:
        settings.DATABASES["default"]["ATOMIC_REQUESTS"] = settings.DATABASES["other"]["ATOMIC_REQUESTS"] = True
    assert response.json() == {"value": 2, "blocking": 42}


@pytest.mark.usefixtures("ardiq_worker")
def test_a_server_that_forks_its_workers() -> None:
    """As gunicorn with --preload: the parent has used the app before it forks."""
    assert add.request_sync(1, 1, timeout=SOON_S) == 2
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                answers = (Client().get(f"/waits?a={number}").json(), flask.test_client().get(f"/waits/{number}").json)
                os._exit(sum(answer["value"] for answer in answers))
            os._exit(99)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [2, 4, 6]
    assert add.request_sync(2, 2, timeout=SOON_S) == 4


def test_a_request_that_fails(ardiq_app: Ardiq) -> None:
    with worker(ardiq_app):
        from ardiq import TaskError

        with pytest.raises(TaskError, match="ValueError") as caught:
            fail.request_sync(timeout=SOON_S)
        assert caught.value.result.tries == 1
    with pytest.raises(TimeoutError):
        add.request_sync(1, 1, timeout=0.02)
    with pytest.raises(TypeError):
        add.request_sync(1, timeout=0.02)
    with pytest.raises(ValueError, match=r"keeps none|none is kept"):
        Ardiq("redis://127.0.0.1:1", result_ttl_ms=0).ref("add").request_sync(1, 1)


async def test_within_inline_a_request_does_not_block() -> None:
    async with inline(app):
        with pytest.raises(RuntimeError, match="nothing may block"):
            add.request_sync(1, 1)


def test_a_view_enqueues_with_its_transaction(size: Callable[[], int]) -> None:
    client = Client(raise_request_exception=False)
    answer = client.get("/stores").json()
    assert answer["status"] == "not_found"  # the view was still within the transaction
    assert asyncio.run(app.status(answer["id"])) == "queued"
    assert client.get("/stores?fail").status_code == 500
    assert size() == 1


def test_transactions_and_savepoints(size: Callable[[], int]) -> None:
    def call(number: int) -> None:
        enqueue_on_commit(add.prepare(number, 0))

    call(1)  # no transaction: at once
    assert size() == 1
    with transaction.atomic():
        call(2)
        with transaction.atomic():
            call(3)
        with suppress(ZeroDivisionError), transaction.atomic():
            call(4)
            raise ZeroDivisionError
        assert size() == 1
    assert size() == 3
    with suppress(ZeroDivisionError), transaction.atomic():
        call(5)
        raise ZeroDivisionError
    with transaction.atomic(using="other"):
        enqueue_on_commit(add.prepare(6, 0), using="other")
        with transaction.atomic():
            pass
        assert size() == 3
    assert size() == 4


def test_what_is_wrong_is_said_in_the_transaction(size: Callable[[], int]) -> None:
    with transaction.atomic():
        with pytest.raises(TypeError, match="missing"):
            enqueue_on_commit(add.prepare(1))
        with pytest.raises(TypeError, match=r"takes task\.prepare\(...\), not Task"):
            enqueue_on_commit(add)  # type: ignore[arg-type]
    assert size() == 0


def test_a_server_that_is_away() -> None:
    lost = Ardiq("redis://127.0.0.1:1", broker_timeout_ms=50)
    task: Task[..., Any] = lost.ref("work")
    ran: list[int] = []
    with transaction.atomic():
        enqueue_on_commit(task.prepare(), robust=True)
        transaction.on_commit(lambda: ran.append(1))
    assert ran == [1]
    with pytest.raises(BrokerError), transaction.atomic():
        enqueue_on_commit(task.prepare())


def test_one_transaction_a_thread(size: Callable[[], int]) -> None:
    entered, committed = threading.Event(), threading.Event()

    def elsewhere() -> None:
        with transaction.atomic():
            enqueue_on_commit(add.prepare(1, 1))
            entered.set()
            committed.wait(SOON_S)
        connections.close_all()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert entered.wait(SOON_S)
    with transaction.atomic():
        enqueue_on_commit(add.prepare(2, 2))
    assert size() == 1
    committed.set()
    thread.join()
    assert size() == 2


def test_a_script_that_ends_at_once(ardiq_app: Ardiq, run_script: Callable[..., Script], size: Any) -> None:
    script = run_script(
        """
        import sys
        import django
        from django.conf import settings
        from django.db import transaction
        from ardiq import Ardiq
        from ardiq.django import enqueue_on_commit

        sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        settings.configure(DATABASES={"default": sqlite})
        django.setup()
        app = Ardiq(sys.argv[1], "web", prefix=sys.argv[2])
        with transaction.atomic():
            enqueue_on_commit(app.ref("add").prepare(1, 2))
        """,
        ardiq_app.redis_url,
        ardiq_app.prefix,
    )
    assert script.end() == (0, "", "")
    assert size() == 1


def test_django_is_not_imported_by_ardiq(run_script: Callable[..., Script]) -> None:
    script = run_script(
        "import sys, ardiq, ardiq.testing, ardiq.cli\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'django', 'sqlalchemy', 'flask', 'pytest'}, 'none')\n"
    )
    assert script.end() == (0, "none\n", "")
