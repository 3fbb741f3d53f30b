"""Calls of the library's functions, right and wrong, for type checkers; nothing here is run.

A right one must pass. A wrong one carries `type: ignore`, which is an error itself where the call is accepted.
"""

from typing import Literal, assert_type

from ardiq import _core
from ardiq._server import calls
from ardiq._server.channel import Channel
from ardiq._server.replies import Call, ask

assert_type(calls.abort(id="a", result_ttl_ms=0), Call[Literal["aborted", "requested", "finished", "not_found"]])
calls.abort("a", 0)  # type: ignore[call-arg]
calls.abort(id="a")  # type: ignore[call-arg]
calls.abort(id=7, result_ttl_ms=0)  # type: ignore[arg-type]
calls.abort(id="a", result_ttl_ms="0")  # type: ignore[arg-type]
calls.abort(id="a", result_ttl_ms=0, force=1)  # type: ignore[call-arg]
calls.abrot(id="a", result_ttl_ms=0)  # type: ignore[attr-defined]
calls.discard(result_ttl_ms=0, tasks=["a", b"b"])
calls.discard(result_ttl_ms=0, tasks=[1])  # type: ignore[list-item]
calls.report_stats(tasks=[calls.TaskFigures("send", 1, 0, 0, 0, 120, 1, 3)])
calls.report_stats(tasks=[calls.TaskFigures("send", 1, 0, 0, 0, 120, 1)])  # type: ignore[call-arg]
calls.report_stats(tasks=[("send", 1, 0, 0, 0, 120, 1, 3)])  # type: ignore[list-item]
calls.schedule_declare(version="v", starting=1, schedules=[calls.Declared("nightly", b"{}", "soon")])  # type: ignore[arg-type]


def blocking(core: _core.Core) -> None:
    assert_type(ask(core, calls.counts()), dict[str, int])
    assert_type(ask(core, calls.task(id="a")), dict[str, bytes])
    assert_type(ask(core, calls.log(id="a", limit=10)), list[str])
    assert_type(ask(core, calls.schedule(name="nightly")), calls.ScheduleRow | None)
    print(ask(core, calls.schedule(name="nightly")).definition)  # type: ignore[union-attr]
    assert_type(ask(core, calls.requeue(tasks=["a"])), list[Literal["queued", "not_dead"] | Exception])
    page = ask(core, calls.workers(cursor="0", limit=100))
    assert_type(page.rows[0].lanes, list[str])
    print(page.rows[0].lane)  # type: ignore[attr-defined]
    ask(core, "counts")  # type: ignore[arg-type]
    print(ask(core, calls.schedule_remove(name="nightly")) == "gone")  # type: ignore[comparison-overlap]


async def awaited(channel: Channel) -> None:
    assert_type(
        await channel.ask(calls.purge(place="dead", which="", offset=0, limit=9, result_ttl_ms=0)), calls.PurgeReply
    )
    reply = await channel.ask(calls.await_(id="a", mailbox="", waiter_ttl_ms=0, result_ttl_ms=0))
    print(reply.row.value)  # type: ignore[union-attr]
    print(reply.answer == "done")  # type: ignore[comparison-overlap]
