"""Enqueue a call of a task, and wait for its outcome if you like."""

import argparse
import asyncio
import sys
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import BrokerError
from . import note_new_queue, open_app
from ._arguments import (
    LONGEST_MS,
    app_argument,
    check_call,
    check_lane,
    check_task,
    duration_ms,
    json_argument,
    json_value,
    unknown_argument,
    word,
)
from ._output import age, json_text, print_json, show

if TYPE_CHECKING:
    from ..app import Ardiq
    from ..job import Job
    from ..models import TaskResult

_TIME_RAN_OUT = 3


def configure(parser: argparse.ArgumentParser) -> None:
    app_argument(parser)
    parser.add_argument("name", type=word, metavar="NAME", help="the task")
    parser.add_argument("--args", default="[]", metavar="JSON", help="positional arguments, such as '[1, \"two\"]'")
    parser.add_argument("--kwargs", default="{}", metavar="JSON", help="keyword arguments, such as '{\"size\": 3}'")
    parser.add_argument("--priority", metavar="LANE", help="its lane (default: the task's)")
    may_be_none = partial(duration_ms, least=0)
    parser.add_argument(
        "--delay", type=may_be_none, default=0, metavar="TIME", help="start it after this delay: 90, 5m"
    )
    parser.add_argument(
        "--id", type=word, metavar="ID", help="your own id: while a task with it waits or runs, none is added"
    )
    parser.add_argument(
        "--wait",
        type=may_be_none,
        nargs="?",
        const=LONGEST_MS,
        metavar="TIME",
        help="wait for its outcome, at most this long; exit code 3 if it takes longer",
    )
    unknown_argument(parser)
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    args, kwargs = json_value(arguments.args, list, "--args"), json_value(arguments.kwargs, dict, "--kwargs")
    app = open_app(arguments, may_be_new=True)
    check_task(app, arguments, arguments.name)
    check_lane(app, arguments.priority)
    check_call(app, arguments.name, args, kwargs)
    note_new_queue(app, arguments)
    entry = app.context.registry.tasks.get(arguments.name)
    task = (entry and entry.task) or app.ref(arguments.name)
    options = {"task_id": arguments.id, "priority": arguments.priority, "delay_ms": arguments.delay}
    with redirect_stdout(sys.stderr):  # what a hook prints is no part of the answer
        job = task.options(**options, queue=app.queue_name).enqueue_sync(*args, **kwargs)
    if job.existed and not arguments.json:
        print(f"{job.id} is there already: nothing was added", file=sys.stderr)
    if arguments.wait is None:
        if arguments.json:
            print_json({"id": job.id, "existed": job.existed})
        else:
            show(job.id)
        return 0
    try:
        result = job.result_sync(timeout=arguments.wait / 1000)
    except TimeoutError:
        result = None
    except KeyboardInterrupt:
        print(f"{job.id} continues", file=sys.stderr)
        raise
    except BrokerError as error:
        raise BrokerError(f"{job.id} is enqueued, but waiting for it failed: {error}") from None
    _tell(app, job, result, arguments)
    return _TIME_RAN_OUT if result is None else 0 if result.success else 1


def _tell(app: "Ardiq", job: "Job[Any]", result: "TaskResult | None", arguments: argparse.Namespace) -> None:
    task_id = job.id
    if arguments.json:
        told = {"state": asyncio.run(app.status(task_id))} if result is None else _told(result)
        print_json({"id": task_id, "existed": job.existed, **told})
    elif result is None and app.status_sync(task_id) == "not_found":
        show(f"{task_id} has ended, and its result is not kept")
    elif result is None:
        show(f"{task_id} has not ended in {age(arguments.wait)}; it continues")
    elif result.success:
        show(json_text(result.value))
    else:
        show(f"{task_id} did not succeed: {result.value}")


def _told(result: "TaskResult") -> dict[str, Any]:
    """A result in the words of the task's record."""
    ways = ("aborted", "expired", "discarded")
    state = "complete" if result.success else next((way for way in ways if getattr(result, way)), "failed")
    return {
        "state": state,
        "result" if result.success else "error": result.value,
        "tries": result.tries,
        "enqueued_at": result.enqueue_time,
        "started_at": result.start,
        "finished_at": result.finish,
        "run_ms": result.duration_ms,
    }
