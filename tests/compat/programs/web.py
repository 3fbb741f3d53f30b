"""FastAPI: tasks enqueued by a handler, by its background tasks, and inline under a test client on another loop."""

import asyncio
import os
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI
from fastapi.testclient import TestClient
from observed import drain, see, see_later

from ardiq import Ardiq
from ardiq.testing import inline

queue = Ardiq(os.environ["ARDIQ_REDIS_URL"], "web")
ran, jobs, done = [], [], []


@queue.task
async def add(a, b=1):
    ran.append([a, b])
    return a + b


@queue.task
def in_thread(a):
    return [a]


@queue.lifespan
async def scope():
    yield {"db": "open"}


@queue.task
def state():
    return queue.state.db


@asynccontextmanager
async def lifespan(_):
    yield


web = FastAPI(lifespan=lifespan)


@web.post("/add/{number}")
async def post(number: int):
    job = await add.enqueue(number)
    return {"id_is_text": isinstance(job.id, str), "result": brief(await job.result())}


@web.post("/background/{number}")
async def background(number: int, tasks: BackgroundTasks):
    tasks.add_task(add.enqueue, number, b=2)
    tasks.add_task(add.options(task_id=f"own-{number}").enqueue, number)
    tasks.add_task(queue.send, "in_thread", number)
    tasks.add_task(lambda: done.append(number))
    return {}


@web.get("/result/{task_id}")
async def result(task_id: str):
    found = await queue.result(task_id)
    return {"status": await queue.status(task_id), "result": found, "value": found and found.value}


@web.post("/wait/{kind}")
async def wait(kind: str):
    job = await {"thread": in_thread, "state": state}[kind].enqueue(*([1] if kind == "thread" else []))
    return brief(await job.result(timeout=5))


def brief(result):
    return None if result is None else [result.success, result.value, result.tries]


def asked(client, method, path):
    response = client.request(method, path)
    body = response.json()
    if isinstance(body, dict) and body.get("result"):
        body["result"] = type(body["result"]).__name__
    return [response.status_code, body]


async def main():
    with TestClient(web) as client:  # each with a loop of its own, in a thread
        see("in a handler", lambda: asked(client, "POST", "/add/1"))
        see("in the background", lambda: asked(client, "POST", "/background/1"))
    with TestClient(web) as client:
        see("on the next loop", lambda: asked(client, "POST", "/add/2"))
    await see_later("waiting", queue.queue_size)
    see("background tasks ran", done)
    await drain(queue)
    see("ran", sorted(ran))
    await see_later("of an own id", lambda: value_of("own-1"))
    ran.clear()

    async with inline(queue):
        with TestClient(web) as client:
            see("inline: in a handler", lambda: asked(client, "POST", "/add/3"))
            see("inline: in the background", lambda: asked(client, "POST", "/background/3"))
            see("inline: thread", lambda: asked(client, "POST", "/wait/thread"))
            see("inline: state", lambda: asked(client, "POST", "/wait/state"))
            see("inline: result", lambda: asked(client, "GET", "/result/own-3")[0])
        await see_later("inline: asked outside", lambda: value_of("own-3"))
        see("inline: ran", sorted(ran))
    with TestClient(web) as client:
        see("unknown", lambda: asked(client, "GET", "/result/none"))


async def value_of(task_id):
    return brief(await queue.result(task_id))


asyncio.run(main())
