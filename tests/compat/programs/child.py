"""`executor="process"`: a process each run, tasks of `__main__`, tasks bound to another name, log records."""

import asyncio
import logging
import os

from observed import drain, plain, see

from ardiq import Ardiq, current_task

records = []


class Kept(logging.Handler):
    def emit(self, record):
        records.append([record.name, record.levelname, record.getMessage().splitlines()[0], record.funcName])


app = Ardiq(os.environ["ARDIQ_REDIS_URL"], "child")
calls = 0


@app.task(executor="process", max_retries=0)
def pid():
    global calls
    calls += 1
    return [os.getpid(), calls]


@app.task(executor="process", max_retries=0)
def told():
    logging.getLogger("mine").info("from the %s", "child")
    logging.getLogger("mine").debug("not this")
    try:
        raise KeyError("no")
    except KeyError:
        logging.getLogger("mine").exception("failed %d", 7)
    return [current_task().name, current_task().tries, __name__ == "child"]


@app.task(executor="process", max_retries=0)
def fails():
    raise KeyError("child")


@app.task(executor="process", max_retries=0)
def ends():
    os._exit(3)


@app.task(executor="process", max_retries=0, timeout=0.5)
def hangs():
    import time

    time.sleep(60)


single = Ardiq(os.environ["ARDIQ_REDIS_URL"], "child-single", concurrency=1)


@single.task(executor="process", max_retries=0)
def pid_again():
    return os.getpid()


def twice(x):
    return x * 2


other_name = app.task(executor="process", max_retries=0, name="bound")(twice)
elsewhere = app.task(executor="process", max_retries=0, name="of another module")(plain)


@app.task(executor="process", max_retries=0)
def gives(kind):
    return {"set": {1}, "lambda": lambda: 1, "tuple": (1, 2)}[kind]


async def main():
    logging.getLogger().addHandler(Kept())
    logging.getLogger().setLevel(logging.INFO)
    jobs = {
        "one": await pid.enqueue(), "two": await pid.enqueue(), "told": await told.enqueue(),
        "fails": await fails.enqueue(), "ends": await ends.enqueue(), "hangs": await hangs.enqueue(),
        "bound": await other_name.enqueue(4), "of another module": await elsewhere.enqueue([1, {"a": None}]),
        "tuple": await gives.enqueue("tuple"),
    }  # fmt: skip
    await drain(app)
    results = {name: await job.result() for name, job in jobs.items()}
    one, two = results.pop("one"), results.pop("two")
    see("a process each", one.success and two.success and one.value[0] != two.value[0])
    see("counted", [one.value[1], two.value[1]] if one.success and two.success else None)
    for name, result in results.items():
        see(name, [result.success, result.value if result.success or name != "ends" else "text", result.tries])
    again = [await pid_again.enqueue() for _ in range(2)]
    await drain(single)
    see("one after the other", len({(await job.result()).value for job in again}))
    see("logged", [record for record in records if record[0] == "mine"])


if __name__ == "__main__":
    import child  # its tasks are not those of `__main__`

    asyncio.run(child.main())
