"""A backend for Django's own tasks: `django.tasks` of Django 6, or its backport `django-tasks` for earlier ones.

`TASKS = {"default": {"BACKEND": "ardiq.django.tasks.ArdiqBackend"}}`, and `ARDIQ_APP = "shop.jobs:app"`. Workers are
those of `manage.py ardiq`.
"""

import builtins
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from inspect import iscoroutinefunction
from traceback import format_exception
from typing import TYPE_CHECKING, Any, TypeAlias

from django.conf import settings  # type: ignore[import-untyped]
from django.utils import timezone as zones  # type: ignore[import-untyped]
from django.utils.module_loading import import_string  # type: ignore[import-untyped]

from .._client.inspector import attempts_of, number_of, text_of
from .._server import calls
from .._server.replies import ask
from ..app import Ardiq
from ..context import current_task
from ..errors import Suspend
from ..job import Job
from ..task import BoundTask
from ._app import configured_app

if TYPE_CHECKING:  # neither is typed, and one of them is missing
    BaseTaskBackend: TypeAlias = Any
    Task: TypeAlias = Any
    TaskResult: TypeAlias = Any
    TaskContext: Any
    TaskError: Any
    TaskResultDoesNotExist: Any
    TaskResultStatus: Any
    normalize_json: Any
    signals: Any
else:
    try:
        from django.tasks import signals
        from django.tasks.backends.base import BaseTaskBackend
        from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
        from django.tasks.exceptions import TaskResultDoesNotExist
        from django.utils.json import normalize_json
    except ImportError:
        from django_tasks import signals
        from django_tasks.backends.base import BaseTaskBackend
        from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
        from django_tasks.exceptions import TaskResultDoesNotExist
        from django_tasks.utils import normalize_json

__all__ = ["ArdiqBackend"]

_DEFAULT_QUEUE = "default"
_PRIORITIES = 201  # from -100 to 100
_LEAST_PRIORITY = -100
_FAILED = {"failed", "aborted", "expired", "discarded", "skipped"}


class ArdiqBackend(BaseTaskBackend):  # type: ignore[misc]
    """Enqueues Django's tasks in the queue of the app that the setting `ARDIQ_APP` names.

    A task's name is its path, such as "shop.tasks.send_invoice". Django's queue "default" is the app's own; another is
    the queue of that name, which a worker must serve (`manage.py ardiq --queue`). A priority from -100 to 100 chooses
    among the app's lanes; if there is one, tasks have no priorities. `OPTIONS` are those of `@app.task`, such as
    `max_retries` or `timeout`, for all tasks of the backend; a task runs on a thread, or on the loop if it is async.
    Results are kept as long as the app keeps them (`result_ttl_ms`).

    The signals `task_started` and `task_finished` are sent in the worker, the second one after the last attempt.

    Raises:
        ImproperlyConfigured: `ARDIQ_APP` is not set, or names no app.
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True

    @cached_property
    def app(self) -> Ardiq:
        """The project's app."""
        return configured_app()

    @property
    def supports_priority(self) -> bool:
        """Whether the app has several lanes."""
        return len(self.app.context.settings.priorities) > 1

    def validate_task(self, task: Task) -> None:
        """Refuse a task that cannot run here; any other is registered with the app, so that workers know it."""
        super().validate_task(task)
        if task.module_path not in self.app.context.registry.tasks:
            options = {name: value for name, value in self.options.items() if name not in ("name", "executor")}
            self.app.task(name=task.module_path, **options)(self._function(task))

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Enqueue a call; blocks until the server has it.

        Raises:
            TypeError: JSON would change an argument.
            BrokerError: the server cannot be reached.
        """
        result = self._new(task, args, kwargs)
        return self._enqueued(result, self._bound(task).enqueue_sync(*result.args, **result.kwargs))

    async def aenqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """`enqueue`, without blocking the loop."""
        result = self._new(task, args, kwargs)
        return self._enqueued(result, await self._bound(task).enqueue(*result.args, **result.kwargs))

    def get_result(self, result_id: str) -> TaskResult:
        """What is known of a task.

        Raises:
            TaskResultDoesNotExist: it never was, is not kept any more, or is no task of Django's.
        """
        queue, _, task_id = result_id.rpartition(":")
        context = (self.app.queue(queue) if queue else self.app).context
        record = ask(context.server.core, calls.task(id=task_id))
        try:
            task = import_string(text_of(record, "name"))
        except ImportError:
            task = None
        if not isinstance(task, self.task_class):
            raise TaskResultDoesNotExist(result_id)
        state = text_of(record, "state")
        args, kwargs = context.inspector.arguments(task_id, record)
        history = attempts_of(record)
        workers = [attempt.worker for attempt in history]
        if record.get("worker") and len(workers) < number_of(record, "tries"):
            workers.append(text_of(record, "worker"))
        tracebacks = [""] * len(history)
        if tracebacks and state in _FAILED:
            tracebacks[-1] = text_of(record, "traceback")
        result = TaskResult(
            task=task,
            id=result_id,
            status=_status(state),
            enqueued_at=_moment(record, "enqueued_at"),
            started_at=_moment(record, "started_at"),
            finished_at=_moment(record, "finished_at"),
            last_attempted_at=_moment(record, "started_at"),
            args=list(args),
            kwargs=kwargs,
            backend=self.alias,
            errors=[_error(each.error, text) for each, text in zip(history, tracebacks, strict=True)],
            worker_ids=workers,
        )
        if state == "complete":
            found = context.inspector.result_sync(task_id, None)
            object.__setattr__(result, "_return_value", None if found is None else found.value)
        return result

    def _bound(self, task: Task) -> BoundTask[..., Any]:
        options: dict[str, Any] = {}
        if task.priority:
            lanes = self.app.context.settings.priorities
            options["priority"] = lanes[(task.priority - _LEAST_PRIORITY) * len(lanes) // _PRIORITIES]
        if task.run_after is not None:
            options["at"] = task.run_after.astimezone(UTC)
        if task.queue_name != _DEFAULT_QUEUE:
            options["queue"] = task.queue_name
        known = self.app.context.registry.task_of(task.module_path)
        assert known is not None
        return known.options(**options)

    def _new(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any], **known: Any) -> TaskResult:
        fields = {"id": "", "status": TaskResultStatus.READY, "enqueued_at": None, "started_at": None}
        fields |= {"finished_at": None, "last_attempted_at": None, "backend": self.alias, "errors": []}
        self.validate_task(task)
        return TaskResult(**{**fields, "worker_ids": [], **known}, task=task, args=list(args), kwargs=dict(kwargs))

    def _enqueued(self, result: TaskResult, job: Job[Any]) -> TaskResult:
        queue = result.task.queue_name
        object.__setattr__(result, "id", job.id if queue == _DEFAULT_QUEUE else f"{queue}:{job.id}")
        object.__setattr__(result, "enqueued_at", zones.now())
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def _function(self, task: Task) -> Callable[..., Any]:
        """What the worker runs."""
        if not iscoroutinefunction(task.func):

            def run(*args: Any, **kwargs: Any) -> Any:
                with self._attempt(task, args, kwargs) as attempt:
                    return attempt.returned(task.func(*attempt.args, **kwargs))

            return run

        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with self._attempt(task, args, kwargs) as attempt:
                return attempt.returned(await task.func(*attempt.args, **kwargs))

        return run_async

    @contextmanager
    def _attempt(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator["_Attempt"]:
        """Around the function, where it runs."""
        running = current_task()
        assert running is not None
        own = running.queue == self.app.queue_name
        result = self._new(
            task,
            args,
            kwargs,
            id=running.task_id if own else f"{running.queue}:{running.task_id}",
            status=TaskResultStatus.RUNNING,
            started_at=(started := zones.now()),
            last_attempted_at=started,
            worker_ids=[self.app.worker_id] * running.tries,
        )
        attempt = _Attempt([TaskContext(task_result=result), *args] if task.takes_context else args)
        signals.task_started.send(type(self), task_result=result)
        try:
            yield attempt
        except Exception as error:
            retries = self.app.context.registry.tasks[task.module_path].retries
            if not isinstance(error, Suspend) and retries.decide(running.tries, error).outcome == "failed":
                kind = type(error)
                path = f"{kind.__module__}.{kind.__qualname__}"
                text = "".join(format_exception(error))
                result.errors.append(TaskError(exception_class_path=path, traceback=text))
                self._finished(result, TaskResultStatus.FAILED)
            raise
        object.__setattr__(result, "_return_value", attempt.value)
        self._finished(result, TaskResultStatus.SUCCESSFUL)

    def _finished(self, result: TaskResult, status: Any) -> None:
        object.__setattr__(result, "finished_at", zones.now())
        object.__setattr__(result, "status", status)
        signals.task_finished.send(type(self), task_result=result)


class _Attempt:
    """What a function is called with, and what it returned."""

    def __init__(self, args: Sequence[Any]) -> None:
        self.args = args
        self.value: Any = None

    def returned(self, value: Any) -> Any:
        self.value = normalize_json(value)
        return self.value


def _status(state: str) -> Any:
    if state == "complete":
        return TaskResultStatus.SUCCESSFUL
    if state in _FAILED:
        return TaskResultStatus.FAILED
    return TaskResultStatus.RUNNING if state == "running" else TaskResultStatus.READY


def _moment(record: dict[str, bytes], field: str) -> datetime | None:
    """A time in a record as Django has it: in UTC, or without a zone in that of the project."""
    at_ms = number_of(record, field)
    if not at_ms:
        return None
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment if settings.USE_TZ else zones.make_naive(moment)


def _error(text: str, traceback: str) -> Any:
    """An error in a record. Its class follows the last frame of its traceback; without one, only the name is known."""
    *_, last = re.split(r"^  .*\n", f"\n{traceback or text}", flags=re.MULTILINE)
    found = re.match(r"\s*([\w.]+)", last)
    path = found[1] if found else "Exception"
    if "." not in path:
        path = f"builtins.{path if hasattr(builtins, path) else 'Exception'}"
    return TaskError(exception_class_path=path, traceback=traceback or text)
