"""What the machine can do without any queue: `python bare.py io CONCURRENCY TASKS`, or `cpu PROCESSES TASKS`."""

import asyncio
import sys
from concurrent.futures import ProcessPoolExecutor

import bodies


async def _io(concurrency: int, tasks: int) -> None:
    slots = asyncio.Semaphore(concurrency)

    async def one(number: int) -> None:
        async with slots:
            await bodies.nap_async(number)

    await asyncio.gather(*(one(number) for number in range(tasks)))


def _part(numbers: range) -> None:
    for number in numbers:
        bodies.burn(number)


def _cpu(processes: int, tasks: int) -> None:
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_part, [range(at, tasks, processes) for at in range(processes)]))


if __name__ == "__main__":
    kind, at_once, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if kind == "io":
        asyncio.run(_io(at_once, count))
    else:
        _cpu(at_once, count)
