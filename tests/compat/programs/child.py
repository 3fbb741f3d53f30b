"""`executor="process"`: a process each run, tasks of `__main__`, tasks bound to another name, log records."""

import asyncio
import logging
import os

from observed import drain, see

from ardiq import Ardiq, current_task

records = []


class Kept(logging.Handler):
    def emit(self, record):
        records.append([record.name, record.levelname, record.getMessage(), record.funcName])


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


def plain(x):
    return x * 2


other_name = app.task(executor="process", max_retries=0, name="bound")(plain)


@app.task(executor="process", max_retries=0)
def gives(kind):
    return {"set": {1}, "lambda": lambda: 1, "tuple": (1, 2)}[kind]


async def main():
    logging.getLogger().addHandler(Kept())
    logging.getLogger().setLevel(logging.INFO)
    jobs = {
        "one": await pid.enqueue(), "two": await pid.enqueue(), "told": await told.enqueue(),
        "fails": await fails.enqueue(), "ends": await ends.enqueue(), "hangs": await hangs.enqueue(),
        "bound": await other_name.enqueue(4), "tuple": await gives.enqueue("tuple"),
    }  # fmt: skip
    await drain(app)
    results = {name: await job.result() for name, job in jobs.items()}
    one, two = results.pop("one"), results.pop("two")
    see("a process each", one.success and two.success and one.value[0] != two.value[0])
    see("counted", [one.value[1], two.value[1]] if one.success and two.success else None)
    for name, result in results.items():
        see(name, [result.success, result.value if result.success or name != "ends" else "text", result.tries])
    see("logged", [record for record in records if record[0] == "mine"])


if __name__ == "__main__":
    import child  # its tasks are not those of `__main__`

    asyncio.run(child.main())
