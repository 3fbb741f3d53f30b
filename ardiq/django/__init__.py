"""Django: tasks that are enqueued when the transaction is committed; a worker command; a backend for its own tasks."""

from django.db import transaction  # type: ignore[import-untyped]

from .._client.producer import held_back
from ..job import Job
from ..task import PreparedTask

__all__ = ["enqueue_on_commit"]


def enqueue_on_commit(call: PreparedTask, *, using: str | None = None, robust: bool = False) -> Job:
    """Enqueue a call when the current transaction is committed; not at all when it, or its savepoint, is rolled back.

    Outside a transaction it is enqueued at once. If the process dies between the commit and the enqueue, it is lost.

    Args:
        call: from `task.prepare(...)`; checked and serialized now, so later changes to its arguments have no effect.
        using: alias of the database; None: the default one.
        robust: log an error from the server instead of raising it at the commit, as in `transaction.on_commit`.

    Returns:
        Its job, whose id you can store in the same transaction.

    Raises:
        TypeError: the arguments do not fit the function, or one cannot be serialized.
        ValueError: an unknown lane, or more data than `payload_limit`.

    Example:
        ```python
        with transaction.atomic():
            order = Order.objects.create(...)
            order.job_id = enqueue_on_commit(send_invoice.prepare(order.pk)).id
            order.save()
        ```
    """
    context = held_back(call, "enqueue_on_commit").task.context
    record = context.producer.record_sync(call)

    def enqueue() -> None:  # by its name Django tells of an error
        context.producer.send_sync([record], waits_s=[call.call_options.wait_s])

    transaction.on_commit(enqueue, using=using, robust=robust)
    return Job(context.app, record[0])
