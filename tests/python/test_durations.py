"""One rule for every duration: a timedelta or seconds, or whole milliseconds where the name ends in `_ms`."""

import asyncio
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import Any

import pytest
from helpers import awaited

import ardiq
from ardiq import Ardiq, Batch, Debounce, Flow, Job, Limit, Rate, RateLimited, Retry, Snooze, Throttle, Unique
from ardiq.retries import ExponentialBackoff, Fixed, Quadratic
from ardiq.testing import BackgroundWorker, Clock

Taking = dict[str, Callable[[Job, Any], Any]]
"""By parameter, what hands a value to it; the job is one that nobody runs."""
PERIODS: Taking = {
    "Ardiq cron_poll_s": lambda job, value: Ardiq(cron_poll_s=value),
    "Ardiq stall_after": lambda job, value: Ardiq(stall_after=value),
    "Ardiq unknown_task_wait": lambda job, value: Ardiq(unknown_task_wait=value),
    "Ardiq task_defaults timeout": lambda job, value: Ardiq(task_defaults={"timeout": value}),
    "Ardiq task_defaults max_age": lambda job, value: Ardiq(task_defaults={"max_age": value}),
    "Ardiq task_defaults result_ttl": lambda job, value: Ardiq(task_defaults={"result_ttl": value}),
    "Ardiq task_defaults retry": lambda job, value: Ardiq(task_defaults={"retry": [value]}),
    "Ardiq.task timeout": lambda job, value: job.app.task(timeout=value),
    "Ardiq.task max_age": lambda job, value: job.app.task(max_age=value),
    "Ardiq.task result_ttl": lambda job, value: job.app.task(result_ttl=value),
    "Ardiq.task retry": lambda job, value: job.app.task(retry=[value]),
    "Ardiq.cron every": lambda job, value: job.app.cron(every=value),
    "Ardiq.cron jitter": lambda job, value: job.app.cron("@daily", jitter=value),
    "Ardiq.cron timeout": lambda job, value: Ardiq().cron("@daily", timeout=value)(nothing),
    "Ardiq.cron max_age": lambda job, value: Ardiq().cron("@daily", max_age=value)(nothing),
    "Ardiq.cron result_ttl": lambda job, value: Ardiq().cron("@daily", result_ttl=value)(nothing),
    "Ardiq.cron retry": lambda job, value: Ardiq().cron("@daily", retry=[value])(nothing),
    "Ardiq.result timeout": lambda job, value: job.app.result(job.id, value),
    "Ardiq.result_sync timeout": lambda job, value: job.app.result_sync(job.id, value),
    "Ardiq.watch timeout": lambda job, value: anext(job.app.watch(job.id, value)),
    "Ardiq.stream timeout": lambda job, value: anext(job.app.stream(job.id, timeout=value), None),
    "Ardiq.stream_sync timeout": lambda job, value: next(job.app.stream_sync(job.id, timeout=value), None),
    "Job.result timeout": lambda job, value: job.result(value),
    "Job.result_sync timeout": lambda job, value: job.result_sync(value),
    "Job.value timeout": lambda job, value: job.value(value),
    "Job.value_sync timeout": lambda job, value: job.value_sync(value),
    "Job.watch timeout": lambda job, value: anext(job.watch(value)),
    "Job.stream timeout": lambda job, value: anext(job.stream(timeout=value), None),
    "Job.stream_sync timeout": lambda job, value: next(job.stream_sync(timeout=value), None),
    "Task.request timeout": lambda job, value: job.app.ref("work").request(timeout=value),
    "Task.request_sync timeout": lambda job, value: job.app.ref("work").request_sync(timeout=value),
    "Task.options delay": lambda job, value: job.app.ref("work").options(delay=value),
    "Task.options expire": lambda job, value: job.app.ref("work").options(expire=value),
    "Task.options result_ttl": lambda job, value: job.app.ref("work").options(result_ttl=value),
    "Task.options wait_for_room": lambda job, value: job.app.ref("work").options(wait_for_room=value),
    "Limit adaptive": lambda job, value: Limit(concurrency=1, adaptive=value),
    "Ardiq.limit adaptive": lambda job, value: job.app.limit("partner", concurrency=1, adaptive=value),
    "Batch wait": lambda job, value: Batch(5, wait=value),
    "Schedules.put every": lambda job, value: job.app.schedules.put("often", "work", every=value),
    "Schedules.put jitter": lambda job, value: job.app.schedules.put("often", "work", "@daily", jitter=value),
    "Unique until": lambda job, value: Unique(until=value, key="of"),
    "Debounce quiet": lambda job, value: Debounce(quiet=value),
    "Debounce most": lambda job, value: Debounce(quiet=0.001, most=value),
    "Throttle per": lambda job, value: Throttle(per=value),
    "Flow timeout": lambda job, value: Flow(timeout=value),
    "Flow result_ttl": lambda job, value: Flow(result_ttl=value),
    "Ardiq.batch result_ttl": lambda job, value: job.app.batch(result_ttl=value),
    "Rate per": lambda job, value: Rate(1, per=value),
    "RateLimited retry_after": lambda job, value: RateLimited(value),
    "Retry delay": lambda job, value: Retry(delay=value),
    "Snooze delay": lambda job, value: Snooze(value),
    "Fixed delay": lambda job, value: Fixed(value),
    "Quadratic unit": lambda job, value: Quadratic(value),
    "ExponentialBackoff base": lambda job, value: ExponentialBackoff(value),
    "ExponentialBackoff cap": lambda job, value: ExponentialBackoff(cap=value),
    "BackgroundWorker.wait_until_idle timeout": lambda job, value: BackgroundWorker(job.app).wait_until_idle(value),
    "BackgroundWorker.stop timeout": lambda job, value: BackgroundWorker(job.app).stop(value),
    "Clock.advance by": lambda job, value: Clock().advance(value),
}
MILLISECONDS: Taking = {
    "Ardiq idle_timeout_ms": lambda job, value: Ardiq(idle_timeout_ms=value),
    "Ardiq poll_block_ms": lambda job, value: Ardiq(poll_block_ms=value),
    "Ardiq broker_timeout_ms": lambda job, value: Ardiq(broker_timeout_ms=value),
    "Ardiq dead_ttl_ms": lambda job, value: Ardiq(dead_ttl_ms=value),
    "Ardiq result_ttl_ms": lambda job, value: Ardiq(result_ttl_ms=value),
    "Ardiq task_defaults backoff_ms": lambda job, value: Ardiq(task_defaults={"backoff_ms": value}),
    "Ardiq.task backoff_ms": lambda job, value: job.app.task(backoff_ms=value),
    "Ardiq.cron backoff_ms": lambda job, value: Ardiq().cron("@daily", backoff_ms=value)(nothing),
    "Task.options delay_ms": lambda job, value: job.app.ref("work").options(delay_ms=value),
    "Task.options schedule_ms": lambda job, value: job.app.ref("work").options(schedule_ms=value),
    "Task.options expire_ms": lambda job, value: job.app.ref("work").options(expire_ms=value),
    "Retry delay_ms": lambda job, value: Retry(delay_ms=value),
}
UNSEEN = re.compile(r"task_defaults|Task\.request")
"""Those that no signature names."""
INTERNAL = {"definition_of", "PreparedTask", "RetryRules", "Task", "Watching.watch", "define", "watch"}
INTERNAL |= {"Reader", "Streaming.stream", "Streaming.stream_sync"}
"""What no user calls with a duration of their own."""
IN_TASKS = {"sleep", "sleep_sync", "wait_for", "wait_for_sync"}
"""What only a running task can call: `test_waits.py`."""


def nothing() -> None: ...


def named() -> Iterator[str]:
    """Every duration that a public signature names."""
    names = [each.name for each in pkgutil.iter_modules(ardiq.__path__) if each.name[0] != "_" and each.name != "cli"]
    for module in map(importlib.import_module, [f"ardiq.{name}" for name in names]):
        for name, thing in vars(module).items():
            is_exported = thing.__module__ == module.__name__ if hasattr(thing, "__module__") else False
            is_exported = is_exported or name in getattr(module, "__all__", ())
            is_result = inspect.isclass(thing) and issubclass(thing, tuple)
            if not name.startswith("_") and is_exported and not is_result and callable(thing):
                yield from _of(name, thing)
                for method, function in inspect.getmembers(thing, inspect.isfunction) if inspect.isclass(thing) else ():
                    if not method.startswith("_"):
                        yield from _of(f"{name}.{method}", function)


def _of(name: str, function: Callable[..., Any]) -> Iterator[str]:
    with suppress(ValueError):  # an exception without a signature of its own
        yield from (
            f"{name} {parameter.name}"
            for parameter in inspect.signature(function).parameters.values()
            if name not in INTERNAL | IN_TASKS and _is_duration(parameter)
        )


def _is_duration(parameter: inspect.Parameter) -> bool:
    kind = str(parameter.annotation)
    is_moment = "datetime.datetime" in kind
    return parameter.name.endswith("_ms") or (re.search("Duration|timedelta", kind) is not None and not is_moment)


def test_no_duration_is_left_out() -> None:
    assert set(named()) == {name for name in [*PERIODS, *MILLISECONDS] if not UNSEEN.search(name)}


async def refused(taking: Taking, name: str, job: Job, values: dict[Any, type[Exception]]) -> None:
    for value, error in values.items():
        with pytest.raises(error, match=rf"\b{name.split()[-1]}(?: of [\w' ]+)? must .*, not "):
            await awaited(taking[name], job, value)
    # Before anything was sent.
    assert await job.app.queue_size() == 0
    assert await job.app.schedules.list() == []


@pytest.mark.parametrize("name", PERIODS)
async def test_a_duration_is_a_timedelta_or_seconds(app: Ardiq, name: str) -> None:
    wrong: dict[Any, type[Exception]] = {
        -1: ValueError,
        timedelta(seconds=-1): ValueError,
        nan: ValueError,
        inf: ValueError,
        -inf: ValueError,
        True: TypeError,
        # Which may be a word, but not this one.
        "5": ValueError if name == "Unique until" else TypeError,
    }
    if name.endswith("adaptive"):  # which takes it
        del wrong[True]
    await refused(PERIODS, name, Job(app, "nobody"), wrong)


@pytest.mark.parametrize("name", [name for name in PERIODS if not name.startswith(("BackgroundWorker", "Clock"))])
@pytest.mark.parametrize("value", [1, 0.01, timedelta(milliseconds=10)])
async def test_both_ways_to_say_it_are_taken(app: Ardiq, name: str, value: Any) -> None:
    try:
        await awaited(PERIODS[name], Job(app, "nobody"), value)
    except TimeoutError:
        assert name.endswith("timeout")


@pytest.mark.parametrize("name", MILLISECONDS)
async def test_milliseconds_are_a_whole_number(app: Ardiq, name: str) -> None:
    wrong: dict[Any, type[Exception]] = {nan: TypeError, 1.5: TypeError, True: TypeError, "5": TypeError}
    if name == "Ardiq result_ttl_ms":
        assert Ardiq(result_ttl_ms=-1).result_ttl_ms == -1  # for ever, as in ArdiQ 1.2
    else:
        wrong[-1] = ValueError
    await refused(MILLISECONDS, name, Job(app, "nobody"), wrong)
    await awaited(MILLISECONDS[name], Job(app, "nobody"), 5)


def test_a_time_is_given_once() -> None:
    moment, task = datetime.now(UTC), Ardiq().ref("work")
    wrong: list[dict[str, Any]] = [
        {"delay": 1, "delay_ms": 1}, {"expire": 1, "expire_ms": 1}, {"at": moment, "schedule_ms": 1},
        {"at": moment, "delay": 1}, {"at": moment, "delay_ms": 1}, {"schedule_ms": 1, "delay_ms": 1},
    ]  # fmt: skip
    for options in wrong:
        with pytest.raises(ValueError, match=r"give .* or .*, not both"):
            task.options(**options)
    with pytest.raises(ValueError, match="give delay or delay_ms, not both"):
        Retry(delay_ms=5, delay=5)
    assert (Retry(delay=1.5).delay_ms, Retry(delay_ms=0).delay_ms, Retry().delay_ms) == (1500, 0, None)


async def test_a_wait_of_no_time_and_one_without_end(app: Ardiq) -> None:
    job = await app.ref("work").enqueue()
    watching = job.watch(1e200)
    assert (await anext(watching)).status == "queued"
    with pytest.raises(TimeoutError):
        _ = [update async for update in job.watch(0)]
    with pytest.raises(TimeoutError):
        await job.result(0)
    with pytest.raises(TimeoutError):
        job.result_sync(0)
    result = asyncio.create_task(job.result(1e200))
    await job.abort()
    assert await result is not None
    assert [update.status async for update in watching][-1] == "complete"
