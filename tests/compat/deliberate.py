"""What differs from ArdiQ 1.2: by program and observation. `docs/coming-from.md` tells users."""

_REFUSED = "what cannot work is refused where it is said, by name; 1.2 failed later, or did something else"
_TRAVELS = "travels; 1.2 refused it, or stored what it could not read"
_TYPES = "arguments and results are as the annotations say; with `check_types=False` as in 1.2"
_AS_SENT = "arrives as it was sent where the annotation can restore it, with `check_types=False` too"
_CRON = "cronsim's syntax: nicknames, names of days and months, seconds"
_STEPS = "as elsewhere: from 5 in steps of 10; in 1.2 it was 5 alone"
_WAITED = "what it waited for was cancelled, not the task: that is a failure like any other; in 1.2 an abort"
_BRACES = "braces mark the hash slot of a queue's keys"
_RESULT = "1.2 settled it with a result that nobody could read"
_CODE_2 = "exit code 2: what was asked for makes no sense"
_DISCARDED = "a purged task has a result that says so; 1.2 forgot it"
_ONCE = "`abort` of a task that is aborted is True: a call repeated after a lost reply says the same"
_EXPIRED = "an expired task has a result that says so; 1.2 forgot it"

DELIBERATE: dict[str, dict[str, str]] = {
    "arguments": {
        **{
            f"{how} {name}": _TRAVELS
            for how in ("sent", "returned")
            for name in ("huge int", "lone surrogate", "datetime", "int keys", "none key", "tuple key")
        },
        **{
            f"returned {name}": _RESULT
            for name in (
                "set", "frozenset", "generator", "range", "naive", "date", "timedelta", "decimal", "uuid", "dataclass",
                "object", "exception", "function",
            )
        },
        **dict.fromkeys(
            (
                "a tuple for a tuple", "a list for a tuple", "text for an int", "a float for an int",
                "a list for a set", "a set for a set", "text for an enum", "an enum for an enum",
                "another return value", "a returned tuple",
            ),
            _TYPES,
        ),
        **{
            f"unchecked: {name}": _AS_SENT
            for name in ("a set for a set", "a tuple for a tuple", "an enum for an enum", "a returned tuple")
        },
        **dict.fromkeys(("too many", "too few", "unknown keyword"), _REFUSED),
    },
    "around": {
        "context: fails: on_error": "`current_task()` is the task that failed, for what hooks log; in 1.2 it was None",
        "metrics: work high: waits": "of first attempts: how long a retry lay ready says nothing new",
    },
    "child": {"one after the other": "a process is kept for the next run; `Process(fresh=True)` starts a new one"},
    "commands": {
        **{
            f"{command}: exit": _CODE_2
            for command in (
                "run -b no.such:app", "status no.such:app", "doctor no.such:app", "purge -y no.such:app",
                "dlq list no.such:app", "status shop.jobs:nothing", "status shop.jobs", "status shop.jobs:not_an_app",
                "dlq replay shop.jobs:app", "dlq delete shop.jobs:app", "dlq replay shop.jobs:app d0 --all",
                "dlq delete shop.jobs:app d0 --all", "purge shop.jobs:app", "purge, typed",
            )
        },
        **{
            f"{command}: {stream}": "what was done is said on the output"
            for stream in ("stdout", "stderr")
            for command in (
                "purge shop.jobs:unused", "purge -y shop.jobs:unused", "purge shop.jobs:app --lane high --yes",
                "purge -y shop.jobs:app", "purge of nothing", "dlq replay shop.jobs:app nothing",
                "dlq delete shop.jobs:app nothing", "dlq replay shop.jobs:app d0 d1 nothing",
                "dlq delete shop.jobs:app d2 nothing", "dlq delete shop.jobs:app d3 d4", "replay all, agreed",
                "delete none",
            )
        },
        "dlq replay shop.jobs:app --all: exit": "asks first, with the number",
        "replay all, agreed: exit": "1.2 had no `-y` there",
        "purge of a lane: scheduled": _DISCARDED,
        "purge: scheduled": _DISCARDED,
        **dict.fromkeys(
            ("doctor shop.jobs:unused: exit", "doctor shop.jobs:app: exit", "doctor --json shop.jobs:app: exit"),
            "no worker is alive: nothing runs",
        ),
        **{f"at work: check {name!r}": "other checks" for name in ("redis", "version", "write", "lane default")},
        **dict.fromkeys(
            (
                "status --json: lanes.scheduled", "status --json: lanes.held", "status --json: lanes.next_scheduled",
                "lanes of status --json",
            ),
            "not counted by lane where there are several: that would read all",
        ),
        "at work: id of worker": "a new one for each process; `label` is its worker_id",
    },
    "worker_command": {
        **{f"{target}: exit": _CODE_2 for target in ("no.such:app", "shop.jobs:nothing", "shop.jobs")},
        **{
            f"{run}: tells '╭'": "no banner"
            for run in ("-b", "--burst", "-b -v", "-b -w 1", "two workers")
        },
        **{
            f"{run}: {what}": "`-q` is for warnings and errors only"
            for run in ("-b -q", "options first", "two quiet workers")
            for what in (
                "levels", "tells 'worker starting worker_id='", "tells 'worker stopped worker_id='",
                "tells 'reason=burst'",
            )
        },
        "two quiet workers: tells 'supervisor starting workers=2'": "likewise",
        "two quiet workers: tells 'supervisor stopped workers=2 code=0'": "likewise",
        "no server, burst: exit": "gives up after half a minute, with a code of its own",
        "no server: exit": "waits for it",
        "dies, of two: exit": "starts it again",
    },
    "logged": {
        **{
            f"{task}: with a traceback": "a failure is logged with its traceback"
            for task in ("fails", "fails_in_thread", "again", "slow", "slow_again")
        },
        "nothing: lines": "it is left for a worker that knows it",
    },
    "inlined": {
        "gives": "`async with inline(app) as app`",
        "unknown": "says why it was set aside",
    },
    "occurrences": {
        "5/10 * * * *": _STEPS,
        "0 5/6 * * *": _STEPS,
        "+5 * * * *": _REFUSED,
        "1_0 * * * *": _REFUSED,
    },
    "outcomes": {
        "outcome: raises cancelled": _WAITED,
        "on_error": _WAITED,
        "returns keys": "dicts with keys that are no strings arrive; 1.2 stored what it could not read",
        "returns set": _RESULT,
        "returns object": _RESULT,
        "abort twice": _ONCE,
        "abort it again": _ONCE,
        "result before now": "a negative time is a ValueError that names it, not an OverflowError",
        "size after abort": "a queued task ends at once when aborted, not when a worker comes to it",
        "expired: status": _EXPIRED,
        "expired: result": _EXPIRED,
    },
    "recurring": {"each occurrence of a short interval": "they all run; 1.2 looked once a `cron_poll_s`"},
    "schedules": {
        "cron '0 0 31 2 *'": "a day that never comes is refused at the decorator; 1.2 logged an error each second",
        "cron '@daily'": _CRON,
        "cron '0 3 * * mon'": _CRON,
        "cron '0 3 * jan *'": _CRON,
        "cron '* * * * * *'": _CRON,
        "every '5'": _REFUSED,
        "every True": _REFUSED,
        "tz 5": _REFUSED,
    },
    "servers": {
        "may evict": "tasks would be lost: refused, unless `allow_eviction=True`",
        "confined to the keys of 1.2": "ours are others; `prefix=` puts them there",
    },
    "surface": {
        "default prefetch": "None: adapted to how long tasks take",
        "of lanes: prefetch": "None: adapted to how long tasks take",
        "default poll_block_ms": "longer: an abort or a stop does not wait for it",
        "weights={}": "no weights; 1.2 demanded one for each lane",
        "a weight is missing": "1 for a lane that is not named; 1.2 demanded one for each lane",
        "options: a delay and a moment": _REFUSED,
        "priorities=[]": "ValueError, not IndexError",
        **dict.fromkeys(("queue '{tenant}'", "queue 'a{b'", "queue 'a}b'"), _BRACES),
        **dict.fromkeys(
            (
                "concurrency=0", "idle_timeout_ms=0", "poll_block_ms=0", "queue_name=''", "cron_poll_s=0",
                "worker_id=''", "nothing=1", "twice a lane", "queue 'a\\nb'", "task({'max_retries': -1})",
                "task({'backoff_ms': -1})", "task({'timeout': 0})", "task({'timeout': -1})",
                "task({'max_retries': None})", "task({'backoff_ms': None})",
                "task({'unique': 1})", "options({'delay_ms': 1.5})",
                "options({'delay_ms': -1})", "options({'expire_ms': -1})", "options({'delay_ms': None})",
                "options({'schedule_ms': None})", "options({'expire_ms': None})", "options({'unique': 1})",
            ),
            _REFUSED,
        ),
    },
}  # fmt: skip


# Not meant: to be mended. Nothing may be added here without an entry in the docs.
OPEN: dict[str, dict[str, str]] = {}
