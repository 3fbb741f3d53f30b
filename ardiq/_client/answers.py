"""What the server answers to a batch of records: jobs, or an error that says what became of each."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from .._server.inbox import name_unsure
from .._server.replies import Ask, Call, refusal
from .._values.known import ADDED, take_answer
from ..errors import ArdiqError, NoLimit
from ..job import Job

# id, name, lane, args, kwargs, options
Record = tuple[str, str, str, bytes, bytes, bytes]


def flat(records: Iterable[Iterable[Any]]) -> list[Any]:
    return [*chain.from_iterable(records)]


def answered(jobs: list[Job], answers: Sequence[Any]) -> list[Job]:
    """The jobs of records, if all were accepted.

    Raises:
        ArdiqError: the first of those that were refused; its `jobs` are the others.
    """
    kinds = set(answers)
    if len(jobs) == len(answers) and kinds <= ADDED:
        return jobs
    refused = [refusal(answer) for answer in answers]
    for job, answer, error in zip(jobs, answers, refused, strict=True):
        if error is None and answer not in ADDED:
            take_answer(job, answer)
    first = next((error for error in refused if error is not None), None)
    if first is None:
        return jobs
    if isinstance(first, ArdiqError):
        first.jobs = [job for job, error in zip(jobs, refused, strict=True) if error is None]
        if first.jobs:
            lost = len(jobs) - len(first.jobs)
            first.args = (f"{first} ({lost} of {len(jobs)} calls: `jobs` of this error has those that were enqueued)",)
    raise first


def partly_sent(error: ArdiqError, jobs: list[Job]) -> ArdiqError:
    """The error of a batch: its `jobs` were accepted nevertheless, and its text names those that may have been."""
    accepted = getattr(error, "accepted", [None] * len(jobs))
    answered = [(job, answer) for job, answer in zip(jobs, accepted, strict=True) if answer]
    error.jobs = [job for job, answer in answered if not refusal(answer)]
    name_unsure(error, [job for job, answer in zip(jobs, accepted, strict=True) if answer is None])
    return error


async def repeat_limited(
    declaration: Call[int],
    records: Sequence[Record],
    jobs: list[Job],
    answers: Sequence[Any],
    ask: Ask,
    send: Callable[[Sequence[Any]], Awaitable[Any]],
) -> list[Any]:
    """The answers to records of which some were refused, because the server has to be told their limits first.

    Raises:
        ArdiqError: what failed now.
    """
    merged = list(answers)
    again = [at for at, answer in enumerate(answers) if isinstance(refusal(answer), NoLimit)]
    if not again:
        return merged

    def merge(late: Sequence[Any]) -> list[Any]:
        for at, answer in zip(again, late, strict=True):
            merged[at] = answer
        return merged

    late: list[Any] = [False] * len(again)  # not sent
    try:
        await ask(declaration)
        late = [None] * len(again)  # perhaps sent
        return merge(await send(flat(records[at] for at in again)))
    except ArdiqError as error:
        error.accepted = merge(getattr(error, "accepted", late))  # type: ignore[attr-defined]
        raise partly_sent(error, jobs) from None
