"""Workflows as users write them, right and wrong, for type checkers; nothing here is run.

A right use must pass. A wrong one carries `type: ignore`, which is an error itself where the use is accepted.
"""

from datetime import timedelta
from typing import NamedTuple, assert_type

from ardiq import (
    Ardiq,
    Batch,
    CallBatch,
    Chain,
    Flow,
    Group,
    Job,
    Map,
    Node,
    PreparedWorkflow,
    Results,
    Subflow,
    TaskResult,
    WorkflowJob,
    WorkflowProgress,
    chain,
    chord,
    current_task,
    group,
)

app = Ardiq("redis://localhost")


class Page(NamedTuple):
    url: str
    size: int


@app.task
async def fetch(url: str) -> Page:
    return Page(url, 1)


@app.task
def parse(page: Page, *, strict: bool = True) -> list[str]:
    return [page.url]


@app.task
async def store(links: list[str], table: str = "links") -> int:
    return len(links)


@app.task
async def resize(path: str, width: int = 100) -> str:
    return path


@app.task
def montage(thumbs: list[str], title: str = "") -> bytes:
    return b""


@app.task
async def report(thumbs: Results[str]) -> int:
    return len([each async for each in thumbs])


@app.task
def report_sync(thumbs: Results[str]) -> int:
    return len(list(thumbs))


@app.task
async def add(a: int, b: int) -> int:
    return a + b


@app.task
async def scale(value: float | None) -> float:
    return value or 0.0


@app.task
async def nothing() -> None: ...


@app.task(batch=Batch(10, wait=1))
async def index(words: list[str]) -> list[int]:
    return [1 for _ in words]


def flows() -> None:
    flow = Flow("site", id="site-7", result_ttl=timedelta(days=1))
    page = flow.add(fetch.prepare("https://example.com"), name="page")
    assert_type(page, Node[Page])
    links = flow.add(parse.prepare(page.result, strict=False))
    assert_type(links, Node[list[str]])
    rows = flow.add(store.prepare(links.result, table="x")).after(page, on_failure="ignore")
    assert_type(rows, Node[int])
    assert_type(rows.result, int)
    assert_type(rows.result_or(None), int | None)
    flow.add(scale.prepare(rows.result))
    flow.add(scale.prepare(rows.result_or(None)))
    flow.add(add.options(delay=5).prepare(rows.result, b=2)).after(links, rows)
    flow.add(montage.prepare([flow.add(resize.prepare("a")).result, "b"]))
    flow.add(nothing.prepare()).after(rows)
    assert_type(flow.add(index.prepare("word")), Node[int])

    assert_type(rows.compensate(add.prepare(rows.result, 1), name="back"), Node[int])
    rows.compensate(add.prepare(links.result, 1))  # type: ignore[arg-type]
    rows.compensate(add)  # type: ignore[arg-type]
    flow.add(fetch.prepare(page.result))  # type: ignore[arg-type]
    flow.add(parse.prepare(links.result))  # type: ignore[arg-type]
    flow.add(store.prepare(links.result, table=rows.result))  # type: ignore[arg-type]
    flow.add(store.prepare(links.result, tables="x"))  # type: ignore[call-arg]
    flow.add(add.prepare(rows.result_or(None), 1))  # type: ignore[arg-type]
    flow.add(montage.prepare([rows.result]))  # type: ignore[list-item]
    flow.add(fetch)  # type: ignore[call-overload]
    flow.add(fetch.enqueue("x"))  # type: ignore[call-overload]
    rows.after(links, on_failure="retry")  # type: ignore[arg-type]
    rows.after("links")  # type: ignore[arg-type]
    Flow(7)  # type: ignore[arg-type]


def maps(paths: list[str]) -> None:
    flow = Flow("gallery")
    thumbs = flow.map(resize, paths, max_concurrent=10, tolerate=0.01)
    assert_type(thumbs, Map[str])
    assert_type(thumbs.results, list[str])
    assert_type(thumbs.result, Results[str])
    assert_type(flow.map(parse.options(priority="low"), [Page("", 0)], tolerate=3, name="pages"), Map[list[str]])
    assert_type(flow.map(index, paths), Map[int])
    flow.add(montage.prepare(thumbs.results))
    assert_type(thumbs.compensate(montage.prepare(thumbs.results)), Map[str])
    flow.add(report.prepare(thumbs.result)).after(thumbs, on_failure="ignore")
    flow.add(report_sync.prepare(thumbs.result))
    assert_type(flow.starmap(add, [(1, 2), (3, 4)], keep_results=False), Map[int])
    assert_type(flow.starmap(resize.options(expire=5), [("a", 1)]), Map[str])

    flow.map(resize, [1, 2])  # type: ignore[arg-type]
    flow.map(add, [1])  # type: ignore[arg-type]
    flow.starmap(add, [(1, "2")])  # type: ignore[arg-type]
    flow.map(resize, paths, tolerate="few")  # type: ignore[call-overload]
    flow.add(montage.prepare(thumbs.result))  # type: ignore[arg-type]
    flow.add(report.prepare(thumbs.results))  # type: ignore[arg-type]
    flow.add(store.prepare(flow.map(fetch, paths).results))  # type: ignore[arg-type]


@app.workflow
def gallery(flow: Flow, paths: list[str], title: str = "") -> Node[bytes]:
    return flow.add(montage.prepare(flow.map(resize, paths).results, title))


@app.workflow(name="clean up")
def tidy(flow: Flow) -> None:
    flow.add(nothing.prepare())


async def starts(flow: Flow, node: Node[int], thumbs: Map[str]) -> None:
    job = await app.start(flow, output=node)
    assert_type(job, WorkflowJob[int])
    assert_type(await job.value(timeout=5), int)
    assert_type(await job.result(), TaskResult[int] | None)
    assert_type(await job.progress(), WorkflowProgress | None)
    assert_type(await job.graph("dot"), str)
    assert_type(job.node("page"), Job)
    assert_type(job.existed, bool)
    assert_type(await job.abort(compensate=True), bool)
    await job.abort(compensate=1)  # type: ignore[arg-type]
    assert_type(await job.pause(), bool)
    assert_type(job.resume_sync(), bool)
    await job.pause("x")  # type: ignore[call-arg]
    async for each in job.nodes():
        assert_type(each.after, dict[str, str])
    assert_type(await app.start(flow), WorkflowJob[None])
    assert_type(app.start_sync(flow, node), WorkflowJob[int])
    await app.start(flow, output=thumbs)  # type: ignore[call-overload]
    await job.graph("png")  # type: ignore[arg-type]

    assert_type(await gallery.start(["a"], title="x"), WorkflowJob[bytes])
    assert_type(await gallery.options(id="gallery-7").start(["a"]), WorkflowJob[bytes])
    assert_type(tidy.start_sync(), WorkflowJob[None])
    await gallery.start([1])  # type: ignore[list-item]
    await gallery.start()  # type: ignore[call-arg]
    await tidy.start(1)  # type: ignore[call-arg]

    assert_type(chain(fetch.prepare("x")), Chain[Page])
    assert_type(chain(fetch.prepare("x")).then(parse, strict=False).then(store, table="rows"), Chain[int])
    assert_type(await chain(fetch.prepare("x")).then(parse).start(id="x"), WorkflowJob[list[str]])
    assert_type(group(resize.prepare("a"), resize.prepare("b")), Group[str])
    assert_type(await group(resize.prepare("a")).then(montage, title="x").start(), WorkflowJob[bytes])
    assert_type(chord([resize.prepare("a")], montage, "title").start_sync(), WorkflowJob[bytes])
    assert_type(await group(resize.prepare("a")).start(), WorkflowJob[None])
    chain(fetch.prepare("x")).then(store)  # type: ignore[arg-type]
    chain(fetch.prepare("x")).then(parse, strict="no")  # type: ignore[call-overload]
    chain(fetch.prepare("x")).then(parse, table="rows")  # type: ignore[call-overload]
    chord([add.prepare(1, 2)], montage)  # type: ignore[arg-type]


@app.task
async def find(folder: str) -> list[str]:
    return [folder]


@app.task
async def pairs() -> list[tuple[int, int]]:
    return [(1, 2)]


def filled(flow: Flow) -> None:
    paths = flow.add(find.prepare("a"))
    assert_type(flow.map(resize, paths.result, chunk=10, tolerate=0.1), Map[str])
    assert_type(flow.map(resize, paths.result_or([])), Map[str])
    thumbs = flow.map(resize, flow.map(resize, ["a"]).result)
    assert_type(flow.map(resize, thumbs.results), Map[str])
    assert_type(flow.map(resize, [flow.add(resize.prepare("a")).result]), Map[str])
    assert_type(flow.starmap(add, flow.add(pairs.prepare()).result), Map[int])
    flow.map(add, paths.result)  # type: ignore[arg-type]
    flow.map(fetch, flow.add(pairs.prepare()).result)  # type: ignore[arg-type]
    flow.map(resize, flow.add(add.prepare(1, 2)).result)  # type: ignore[call-overload]
    flow.map(resize, paths)  # type: ignore[call-overload]
    flow.map(resize, ["a"], chunk="few")  # type: ignore[call-overload]
    flow.starmap(add, paths.result)  # type: ignore[arg-type]


@app.workflow
def linked(flow: Flow, page: Page, strict: bool = True) -> Subflow[int]:
    return flow.add(chain(parse.prepare(page, strict=strict)).then(store))


async def nested(flow: Flow) -> None:
    assert_type(gallery.prepare(["a"], title="x"), PreparedWorkflow[bytes])
    part = flow.add(gallery.prepare([flow.add(resize.prepare("a")).result]), name="gallery")
    assert_type(part, Subflow[bytes])
    assert_type(part.result, bytes)
    assert_type(part.result_or(None), bytes | None)
    assert_type(flow.add(tidy.prepare()).after(part, on_failure="ignore"), Subflow[None])
    assert_type(flow.add(chain(fetch.prepare("x")).then(parse)), Subflow[list[str]])
    thumbs = flow.add(group(resize.prepare("a"), chain(resize.prepare("b")).then(resize)))
    assert_type(thumbs, Subflow[list[str]])
    flow.add(montage.prepare(thumbs.result)).after(part, thumbs)
    assert_type(await app.start(flow, output=part), WorkflowJob[bytes])
    assert_type(await linked.start(Page("", 0)), WorkflowJob[int])
    gallery.prepare([1])  # type: ignore[list-item]
    gallery.prepare()  # type: ignore[call-arg]
    flow.add(montage.prepare(part.result))  # type: ignore[arg-type]
    flow.add(parse.prepare(thumbs.result))  # type: ignore[arg-type]
    flow.add(gallery)  # type: ignore[call-overload]
    thumbs.after("part")  # type: ignore[arg-type]

    assert_type(group(group(resize.prepare("a")), group(resize.prepare("b"))), Group[list[str]])
    assert_type(chain(linked.prepare(Page("", 0))), Chain[int])
    assert_type(chain(group(resize.prepare("a"))), Group[str])
    line = chain(fetch.prepare("x"))
    assert_type(line.then(linked, strict=False), Chain[int])
    assert_type(line.then(lambda page: group(parse.prepare(page), parse.prepare(page))), Group[list[str]])
    assert_type(line.then(lambda page: chain(parse.prepare(page)).then(store)), Chain[int])
    assert_type(line.then(lambda page: linked.prepare(page)), Chain[int])
    assert_type(line.then(lambda page: resize.prepare(page.url)), Chain[str])
    assert_type(line.then(lambda page: group(fetch.prepare("x"))).then(lambda pages: nothing.prepare()), Chain[None])
    assert_type(line.on_failure(nothing.prepare()).then(parse), Chain[list[str]])
    assert_type(group(resize.prepare("a")).on_failure(line).then(montage), Chain[bytes])
    assert_type(chord([chain(resize.prepare("a")).then(resize)], montage), Chain[bytes])
    assert_type(chord([resize.prepare("a"), resize.prepare("b")], gallery, title="x"), Chain[bytes])
    assert_type(chord([resize.prepare("a")], lambda paths: group(gallery.prepare(paths))), Group[bytes])
    line.then(gallery)  # type: ignore[arg-type]
    line.then(linked, strict="no")  # type: ignore[call-overload]
    line.then(lambda page: 7)  # type: ignore[arg-type, return-value]
    line.then(lambda page: group(store.prepare(page)))  # type: ignore[arg-type]
    line.on_failure(nothing)  # type: ignore[arg-type]
    chord([fetch.prepare("a")], gallery)  # type: ignore[arg-type]


async def batches() -> None:
    async with app.batch("import", on_success=nothing.prepare(), on_death=chain(nothing.prepare()), id="x") as batch:
        assert_type(batch, CallBatch)
        await batch.add(fetch.prepare("x"), resize.options(delay=5).prepare("a"))
        assert_type(batch.job, WorkflowJob[None])
        assert_type(batch.existed, bool)
        await batch.add(fetch)  # type: ignore[arg-type]
        await batch.add("x")  # type: ignore[arg-type]
        await batch.add(fetch.prepare(7))  # type: ignore[arg-type]
    with app.batch(on_complete=gallery.prepare(["a"])) as other:
        other.add_sync(fetch.prepare("x"))
    app.batch(on_success=nothing)  # type: ignore[arg-type]
    app.batch(7)  # type: ignore[arg-type]
    task = current_task()
    assert task
    assert_type(app.batch_of(task), CallBatch)
    app.batch_of(7)  # type: ignore[arg-type]
