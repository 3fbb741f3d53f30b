"""`ardiq limits`, and what other commands say of limits."""

import asyncio
import json
import shlex
import sys
from collections.abc import Callable
from typing import Any

import pytest
from helpers import eventually, result_of, working

from ardiq import Ardiq, Batch, Limit, Rate, RateLimited
from ardiq.cli import main

MODULE = f"{__name__}:limits_app"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def app(make_app: Any, monkeypatch: pytest.MonkeyPatch) -> Ardiq:
    app: Ardiq = make_app()
    partner = app.limit("partner", rate=Rate(100, per=60, burst=20))

    @app.task(limits=[partner, Limit("customer", key="customer", concurrency=1)])
    async def sync(customer: str) -> None: ...

    monkeypatch.setattr(sys.modules[__name__], "limits_app", app, raising=False)
    return app


@pytest.fixture
def ardiq(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_limits_are_listed_shown_put_and_removed(app: Ardiq, ardiq: Run) -> None:
    assert ardiq("limits", "list", MODULE)[:2] == (
        0,
        "there are no limits: those of the code are declared when a worker starts, or a task is enqueued with them\n",
    )
    code, out, _ = ardiq("limits", "put", MODULE, "partner", "--rate", "10", "--per", "500ms", "--burst", "3", "--json")
    assert code == 0
    assert json.loads(out) == {
        "name": "partner",
        "key": None,
        "concurrency": None,
        "rate": 10,
        "per_ms": 500,
        "burst": 3,
        "overridden": True,
        "running": 0,
        "waiting": 0,
        "exact": True,
        "declared": False,
        "opens_at": None,
        "max_waiting": None,
        "recovery_ms": None,
        "share": 1.0,
        "buckets": [],
    }
    _, out, _ = ardiq("limits", "put", MODULE, "customer(a,b)", "--concurrency", "0")
    assert "nobody has declared 'customer' yet" in out
    assert "customer(a,b)  nothing: it is closed (put)  0" in out
    _, out, _ = ardiq("limits", "list", MODULE)
    assert [line.split("  ")[0] for line in out.splitlines()[1:]] == ["customer(a,b)", "partner"]
    assert "10 per 0.5 s, 3 at once (put)" in out
    assert ardiq("limits", "remove", MODULE, "partner") == (
        0,
        "partner: removed; nothing limits its tasks now\n",
        "",
    )
    assert ardiq("limits", "put", MODULE, "customer", "--concurrency", "3")[0] == 0
    said = "customer(a,b): removed; now it lets start 3 at once\n"
    assert ardiq("limits", "remove", MODULE, "customer(a,b)") == (0, said, "")
    said = "nothing was put for customer(a,b): what its limit says counts\n"
    assert ardiq("limits", "remove", MODULE, "customer(a,b)") == (1, said, "")
    code, out, _ = ardiq("limits", "remove", MODULE, "parter", "--json")
    assert (code, json.loads(out)) == (1, {"name": "parter", "changed": False})
    assert ardiq("limits", "show", MODULE, "custom")[1].startswith("there is no limit 'custom'; ")


def test_what_is_left_of_a_slowed_limit_is_shown(app: Ardiq, ardiq: Run) -> None:
    words = ("--concurrency", "5", "--rate", "10", "--burst", "2", "--max-waiting", "1000", "--adaptive", "5m")
    _, out, _ = ardiq("limits", "put", MODULE, "partner", *words)
    assert "5 at once, 10 per 1 s, 2 at once, 1,000 wait in a line, adaptive (put)  " in out
    core, base = app.context.server.core, app.context.server.base
    core.command(["SET", f"{base}slowed:partner", f"0.5 {2**41}", "PX", "300000"])
    _, out, _ = ardiq("limits", "list", MODULE)
    assert "adaptive (put); now 2 at once, 5 per 1 s, 2 at once" in out
    shown = json.loads(ardiq("limits", "show", MODULE, "partner", "--json")[1])
    assert (shown["max_waiting"], shown["recovery_ms"], shown["share"]) == (1000, 300_000, 0.5)
    _, out, _ = ardiq("limits", "put", MODULE, "partner", "--adaptive", "0")
    assert "any number (put)  " in out


def test_what_waits_for_what_is_shown(app: Ardiq, ardiq: Run) -> None:
    job = app.ref("sync").enqueue_sync(customer="a b")
    assert ardiq("limits", "put", MODULE, "customer", "--concurrency", "0")[0] == 0
    other = app.ref("sync").enqueue_sync(customer="c")
    _, out, _ = ardiq("task", "show", MODULE, job.id)
    assert "limited, number 1 of 1 that wait for customer(a%20b) and partner" in out
    _, out, _ = ardiq("task", "show", MODULE, other.id, "--json")
    shown = json.loads(out)
    assert (shown["state"], shown["buckets"]) == ("limited", "customer(c),partner")
    assert shown["place"] == {"key": "line:default:customer(c),partner", "position": 0, "of": 1}
    _, out, _ = ardiq("status", MODULE)
    assert "2 more wait for limits, which `ardiq limits list` shows, or in batches" in out
    assert "0 queued, 2 limited, 0 scheduled, 0 running, 0 dead" in ardiq("top", MODULE, "--once")[1]
    _, out, _ = ardiq("status", MODULE, "--json")
    status = json.loads(out)
    assert (status["counts"]["limited"], status["lanes"][0]["limited"]) == (2, 2)
    code, out, _ = ardiq("purge", MODULE, "--yes", "--json")
    assert (code, json.loads(out)) == (0, {"removed": 2})
    assert [asyncio.run(app.status(task)) for task in (job.id, other.id)] == ["complete", "complete"]


def test_what_gathers_says_when_it_starts(app: Ardiq, ardiq: Run) -> None:
    """A batch is no limit of those that can be looked at and changed."""
    partner = app.context.registry.limits["partner"]
    assert isinstance(partner, Limit)
    index = app.ref("index", batch=Batch(3, wait=3600, key=lambda number: f"k {number % 2}"), limits=partner)
    first, *_ = [index.enqueue_sync(number) for number in (1, 3)]
    _, out, _ = ardiq("task", "show", MODULE, first.id)
    assert "limited, number 1 of 2 that gather in a batch of 3, which starts in " in out
    assert " if it is not full before\n" in out
    _, out, _ = ardiq("task", "show", MODULE, first.id, "--json")
    assert 3_500_000 < json.loads(out)["batch"].pop("starts_in_ms") <= 3_600_000
    index.enqueue_sync(5)
    _, out, _ = ardiq("task", "show", MODULE, first.id)
    assert "limited, number 1 of 3 that wait in batches of 3 for partner and a worker\n" in out
    _, out, _ = ardiq("task", "show", MODULE, first.id, "--json")
    assert json.loads(out)["batch"] == {"size": 3, "starts_in_ms": None}
    _, out, _ = ardiq("limits", "list", MODULE)
    assert [line.split("  ")[0] for line in out.splitlines()[1:]] == ["customer", "partner"]
    assert [each.name for each in asyncio.run(app.limits.buckets())] == ["partner"]
    _, out, _ = ardiq("status", MODULE)
    assert "3 more wait for limits, which `ardiq limits list` shows, or in batches that are not full" in out


def test_a_closed_limit_is_a_finding(app: Ardiq, ardiq: Run) -> None:
    app.ref("sync").enqueue_sync(customer="c")
    assert ardiq("limits", "put", MODULE, "customer(a b)", "--concurrency", "0")[0] == 0
    _, out, _ = ardiq("doctor", MODULE, "--json")
    [check] = [check for check in json.loads(out)["checks"] if check["name"].startswith("limit ")]
    assert (check["name"], check["status"]) == ("limit customer(a b)", "warn")
    assert check["detail"] == "it is closed: none of its tasks start"
    assert check["remedy"] == "to open it: `ardiq limits remove MODULE:ATTR 'customer(a b)'`"


async def test_a_limit_that_a_task_closed_is_a_finding_and_is_opened(app: Ardiq, ardiq: Run) -> None:
    ran: list[int] = []

    @app.task(limits=Limit("slow", concurrency=2, rate=Rate(600, per=60, burst=3)))
    async def call(number: int) -> None:
        ran.append(number)
        if ran == [1]:
            raise RateLimited(36_000)

    def find() -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(ardiq("doctor", MODULE, "--json")[1])["checks"]
        return [check for check in found if check["name"] == "limit slow"]

    async with working(app):
        job = await call.enqueue(1)
        [check] = await eventually(lambda: asyncio.to_thread(find))
        assert check["detail"].startswith("a task closed it by RateLimited, for 9 h 59 m")
        command = shlex.split(check["remedy"].partition("`")[2].rstrip("`"))
        assert command[:4] == ["ardiq", "limits", "put", "MODULE:ATTR"]
        assert command[4:] == ["slow", "--concurrency", "2", "--rate", "600", "--per", "60000ms", "--burst", "3"]
        assert ran == [1]
        assert (await asyncio.to_thread(ardiq, "limits", "put", MODULE, *command[4:]))[0] == 0
        assert (await result_of(job)).success
        assert await asyncio.to_thread(find) == []


def test_workers_that_know_no_limits_are_a_finding(app: Ardiq, ardiq: Run) -> None:
    app.ref("sync").enqueue_sync(customer="c")
    core = app.context.server.core
    for version, level in (("2.1.0", None), ("2.0.3", "fail")):
        info = json.dumps({"ardiq": version})
        core.call("join", [f"w:{version}", 60_000, info, '["default"]', 1])
        checks = json.loads(ardiq("doctor", MODULE, "--json")[1])["checks"]
        found = [check for check in checks if check["name"] == "lane default"]
        assert [check["status"] for check in found] == ([level] if level else [])
        core.call("leave", [f"w:{version}", 0])


def test_a_limit_that_has_left_the_code_is_a_finding(app: Ardiq, ardiq: Run) -> None:
    def found() -> dict[str, str]:
        _, out, _ = ardiq("doctor", MODULE, "--json")
        checks = [check for check in json.loads(out)["checks"] if check["name"].startswith("limit ")]
        return {check["name"]: f"{check['status']}: {check['detail']}; {check['remedy']}" for check in checks}

    app.ref("sync").enqueue_sync(customer="c")
    assert found() == {}, "those of the code are none, whether a task has them or not"
    old = Limit("old", concurrency=1)
    job = app.ref("sync", limits=old).enqueue_sync(customer="c")
    assert found() == {}
    asyncio.run(job.abort())
    assert app.context.registry.limits.pop("old") == old, "the next release of the code has it no more"
    assert found() == {
        "limit old": "warn: this code does not declare it, and none of its tasks runs or waits; if no other program of"
        " this queue has it: `ardiq limits remove MODULE:ATTR old`"
    }
    assert ardiq("limits", "remove", MODULE, "old")[0] == 0
    assert found() == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["put", MODULE, "partner"], "give a concurrency, a rate, max_waiting or adaptive for limit 'partner'"),
        (["put", MODULE, "partner", "--max-waiting", "0"], "max_waiting of limit 'partner' must be at least 1, not 0"),
        (["put", MODULE, "partner", "--adaptive", "x"], "argument --adaptive: 'x' is not a duration"),
        (["put", MODULE, "partner", "--concurrency", "-1"], "must be at least 0, not -1"),
        (["put", MODULE, "partner", "--concurrency", "x"], "argument --concurrency: invalid int value: 'x'"),
        (["put", MODULE, "partner", "--rate", "nan"], "the starts of a Rate must be a number, not nan"),
        (["put", MODULE, "partner", "--rate", "0"], "must be positive, not 0"),
        (["put", MODULE, "partner", "--burst", "3"], "--per and --burst belong to --rate N"),
        (["put", MODULE, "partner", "--rate", "1", "--burst", "0"], "burst of a Rate must be at least 1, not 0"),
        (["put", MODULE, "a:b", "--concurrency", "1"], "the name of a limit may have letters, digits and any of"),
        (["put", MODULE, "customer(1", "--concurrency", "1"], "it does not end with ')'"),
        (["show", MODULE, "customer()"], "the key of limit 'customer' is empty"),
        (["remove", MODULE, ""], "LIMIT: it must not be empty"),
    ],
)
def test_what_is_wrong_is_refused(words: list[str], says: str, app: Ardiq, ardiq: Run) -> None:
    code, _, errors = ardiq("limits", *words)
    assert code == 2
    assert says in errors


def test_a_call_whose_key_cannot_be_computed_is_refused(app: Ardiq, ardiq: Run) -> None:
    code, _, errors = ardiq("enqueue", MODULE, "sync", "--args", '[""]')
    assert code == 2
    assert "the key of limit 'customer' of task 'sync' is empty" in errors
