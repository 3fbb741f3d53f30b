"""Names, signatures, defaults; dataclasses that can be built, compared and frozen; property values."""

import copy
import dataclasses
import inspect
import os
import pickle

from observed import see

import ardiq
from ardiq import Ardiq, Histogram, Job, PreparedTask, Task, TaskMetrics

URL = os.environ["ARDIQ_REDIS_URL"]


def parameters(call):
    """By position and by name, with defaults; `self` and what the other package adds are for the comparison."""
    return {
        name: [each.kind.name, "none" if each.default is each.empty else repr(each.default)]
        for name, each in inspect.signature(call).parameters.items()
        if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }


# What 1.2 has, has to be there; what is new here may be, too.
NAMES = """Ardiq ArdiqError BrokerError DeadLetter EnqueueContext ErrorContext ExecutionContext Histogram Job
    PreparedTask Retry State Task TaskContext TaskInfo TaskMetrics TaskResult current_task""".split()  # noqa: SIM905
for name in NAMES:
    see(f"ardiq.{name}", hasattr(ardiq, name) and name in ardiq.__all__)

KEPT = {
    Ardiq.__init__: "redis_url queue_name priorities worker_id default_priority weights limits serializer deserializer "
    "cron_poll_s",
    Ardiq.task: "fn name max_retries backoff_ms timeout priority unique executor",
    Ardiq.cron: "spec every name max_retries backoff_ms timeout priority coalesce tz executor",
    Ardiq.ref: "name priority unique",
    Ardiq.send: "name",
    Ardiq.enqueue_many: "tasks",
    Ardiq.result: "task_id timeout",
    Ardiq.status: "task_id",
    Ardiq.info: "task_id",
    Ardiq.abort: "task_id",
    Ardiq.replay: "task_id",
    Ardiq.delete_dead: "task_id",
    Ardiq.dead_letters: "limit",
    Ardiq.lifespan: "fn",
    Ardiq.middleware: "fn",
    Ardiq.on_error: "fn",
    Ardiq.on_enqueue: "fn",
    Job.result: "timeout",
    Task.__init__: "app name fn unique",
    Task.options: "task_id priority delay_ms schedule_ms expire_ms unique",
    ardiq.Retry.__init__: "message delay_ms",
    Job.__init__: "app id",
    PreparedTask.__init__: "name args kwargs task_id priority delay_ms schedule_ms expire_ms unique",
    TaskMetrics.__init__: "fn_name priority succeeded retried failed aborted run wait",
    Histogram.__init__: "buckets sum count",
}
HOOKS = (Ardiq.lifespan, Ardiq.middleware, Ardiq.on_error, Ardiq.on_enqueue)


def title(call):
    """As the user writes it, whichever class it is inherited from."""
    if call in HOOKS:
        return call.__name__
    return f"Ardiq.{call.__name__}" if getattr(Ardiq, call.__name__, None) is call else call.__qualname__


for call, names in KEPT.items():
    there = parameters(call)
    for name in names.split():
        see(f"{title(call)}({name})", there.get(name))
    see(
        f"{title(call)} by position",
        [n for n in there if n in names.split() and "POSITIONAL" in there[n][0]],
    )

for kind in (
    "TaskResult",
    "TaskContext",
    "EnqueueContext",
    "ExecutionContext",
    "ErrorContext",
    "TaskInfo",
    "DeadLetter",
):
    see(f"{kind} is a tuple", issubclass(getattr(ardiq, kind), tuple))
    see(f"{kind} defaults", lambda kind=kind: getattr(ardiq, kind)._field_defaults)
    see(f"{kind} fields", lambda kind=kind: getattr(ardiq, kind)._fields)
see("a TaskResult", ardiq.TaskResult(True, 1, 2))
see("of a dead letter", ardiq.DeadLetter("i", "f", (1,), {}, "low", "e", 1, 2, 3))
see("of a task info", ardiq.TaskInfo("i", "f", (), {}, 1, 0, "queued"))

app = Ardiq(URL, "surface", ["low", "mid", "high"])
other = Ardiq(URL, "surface", ["low", "mid", "high"])
job = Job(app, "one")
see("Job: a dataclass", dataclasses.is_dataclass(Job))
see("Job: fields", lambda: [each.name for each in dataclasses.fields(Job)])
see("Job: equal", [job == Job(app, "one"), job == Job(app, "two"), job == Job(other, "one"), job == "one"])
see("Job: hash", hash(job) == hash(Job(app, "one")))
see("Job: by name", Job(app=app, id="one") == job)
see("Job: replaced", lambda: dataclasses.replace(job, id="two").id)
see("Job: matched", lambda: Job.__match_args__)
see("Job: copied", lambda: copy.copy(job) == job)
see("Job: frozen", lambda: setattr(job, "id", "x"))
see("Job: slots", hasattr(job, "__dict__"))

call = ("add", (1, 2), {"k": 3}, None, None, 0, 0, 0)
prepared = PreparedTask(*call)
see("PreparedTask: a dataclass", dataclasses.is_dataclass(PreparedTask))
see("PreparedTask: fields", lambda: [each.name for each in dataclasses.fields(PreparedTask)])
see("PreparedTask: as dict", lambda: dataclasses.asdict(prepared))
see("PreparedTask: equal", lambda: [prepared == PreparedTask(*call), prepared == PreparedTask(*call, unique=True)])
see("PreparedTask: replaced", lambda: dataclasses.replace(prepared, delay_ms=5).delay_ms)
see("PreparedTask: frozen", lambda: setattr(prepared, "delay_ms", 1))
see("PreparedTask: repr", lambda: repr(prepared))
see("PreparedTask: pickled", lambda: pickle.loads(pickle.dumps(prepared)) == prepared)


@app.task(priority="high", unique=True)
async def add(a, b=2, *, k=0):
    return a + b + k


see("prepare", lambda: dataclasses.asdict(add.prepare(1, k=2)))
see("prepare: equal", lambda: add.prepare(1, k=2) == add.prepare(1, k=2))
with_options = add.options(task_id="mine", priority="low", schedule_ms=2, expire_ms=3, unique=False)
see("prepare with options", lambda: dataclasses.asdict(with_options.prepare(1)))
see("options: a delay and a moment", lambda: add.options(delay_ms=1, schedule_ms=2) and "accepted")
see("options: task", with_options.task is add)

empty = Histogram((), 0.0, 0)
metrics = TaskMetrics("f", "low", 1, 2, 3, 4, empty, empty)
see("TaskMetrics", lambda: dataclasses.asdict(TaskMetrics("f", "low", 1, 2, 3, 4, empty, empty))["failed"])
see("TaskMetrics: equal", lambda: metrics == TaskMetrics("f", "low", 1, 2, 3, 4, empty, empty))
see("TaskMetrics: frozen", lambda: setattr(metrics, "failed", 1))

see("task", [add.name, add.priority, add.unique, add.fn.__name__, add.app is app])
see("task: vars", sorted(name for name in vars(add) if not name.startswith("_")))
see("Task", lambda: Task(app, "x", None, None).unique)
see("ref: called", lambda: app.ref("x")())

OPTIONS = """queue_name priorities default_priority weights limits concurrency prefetch idle_timeout_ms poll_block_ms
    result_ttl_ms burst tasks crons""".split()  # noqa: SIM905
for name in OPTIONS:
    see(f"default {name}", lambda name=name: getattr(Ardiq(URL), name))
    see(f"set {name}", lambda name=name: setattr(Ardiq(URL), name, 1))
several = Ardiq(URL, priorities=["a", "b"], weights={"b": 3, "a": 1}, limits={"b": 2, "a": 1}, concurrency=5)
for name in ("weights", "limits", "prefetch", "default_priority", "concurrency"):
    see(f"of lanes: {name}", lambda name=name: getattr(several, name))
see("lane order of weights", lambda: list(several.weights))
for name in [*OPTIONS[:10], "worker_id", "serializer", "deserializer", "default_priority"]:
    see(f"None for {name}", lambda name=name: Ardiq(URL, **{name: None}) and "accepted")
see("None for burst", lambda: Ardiq(URL, burst=None).burst)
for name, value in {
    "concurrency": 0, "prefetch": 0, "idle_timeout_ms": 0, "poll_block_ms": 0, "result_ttl_ms": -1, "queue_name": "",
    "cron_poll_s": 0, "priorities": [], "weights": {}, "limits": {}, "worker_id": "", "redis_url": " ", "nothing": 1,
}.items():  # fmt: skip
    see(f"{name}={value!r}", lambda name=name, value=value: Ardiq(**{"redis_url": URL, name: value}) and "accepted")
see("a weight is missing", lambda: Ardiq(URL, priorities=["a", "b"], weights={"b": 3}).weights)
see("twice a lane", lambda: Ardiq(URL, priorities=["a", "a"]) and "accepted")
see("lanes in a tuple", lambda: Ardiq(URL, priorities=("a", "b")).priorities)
see("a lane for default that is none", lambda: Ardiq(URL, default_priority="x"))
see("lane of a task that is none", lambda: app.task(priority="x")(print))
see("lane of a ref that is none", lambda: app.ref("y", priority="x").name)
for braces in ("{tenant}", "a{b", "a}b", "a b", "a:b", "ü", "a\nb"):
    see(f"queue {braces!r}", lambda braces=braces: Ardiq(URL, braces).queue_name)

see("Retry()", [str(ardiq.Retry()), ardiq.Retry().delay_ms, ardiq.Retry("x", delay_ms=5).delay_ms])
see("errors", [each.__name__ for each in ardiq.BrokerError.__mro__])
see("errors: arguments", lambda: [repr(ardiq.BrokerError()), repr(ardiq.BrokerError("a", 1))])
see("state", lambda: app.state.missing)
see("task twice", lambda: app.task(name="add")(print))
see("task without a name", lambda: app.task(object()))
see("executor", lambda: app.task(executor="boat")(print))
see("async in a process", lambda: app.task(executor="process", name="p1")(add.fn))
see("a closure in a process", lambda: app.task(executor="process", name="p2")(lambda: 1))
see("lifespan", lambda: app.lifespan(print))
see("middleware", lambda: app.middleware(print))
see("on_error gives", app.on_error(print) is print)
see("on_enqueue gives", app.on_enqueue(print) is print)
for options in (
    {"max_retries": 0}, {"max_retries": -1}, {"backoff_ms": -1}, {"timeout": 0}, {"timeout": -1}, {"timeout": 1},
    {"max_retries": None}, {"backoff_ms": None}, {"name": ""}, {"unique": None}, {"unique": 1},
):  # fmt: skip

    def some(): ...

    some.__name__ = f"some{sorted(options.items())}"
    see(f"task({options})", lambda options=options: app.task(**options)(some) and "accepted")
for options in (
    {"task_id": ""}, {"task_id": None}, {"priority": None}, {"priority": "nope"}, {"delay_ms": -1}, {"expire_ms": -1},
    {"delay_ms": 1.5}, {"delay_ms": None}, {"schedule_ms": None}, {"expire_ms": None}, {"unique": 1},
):  # fmt: skip
    see(f"options({options})", lambda options=options: add.options(**options) and "accepted")
