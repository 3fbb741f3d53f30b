"""What `@app.cron` takes, and when it says the next occurrence is."""

import os
from datetime import UTC, timedelta, timezone
from zoneinfo import ZoneInfo

from observed import see

from ardiq import Ardiq

app = Ardiq(os.environ["ARDIQ_REDIS_URL"], "schedules", ["low", "high"])
number = iter(range(1000))


def declare(*args, **options):
    name = f"c{next(number)}"
    task = app.cron(*args, name=name, **options)(lambda: None)
    return [type(task).__name__, task.name == name, name in app.crons, name in app.tasks]


for spec in ("* * * * *", "*/5 * * * *", "0 3 * * 7", "0 0 31 2 *", "1-5,7 * * * *", "61 * * * *", "* * * *", "@daily",
    "0 3 * * mon", "0 3 * jan *", "5/10 * * * *", "5-1 * * * *", "", "0 0 1 1 *",
    "* * * * * *", "0 22-6 * * *"):  # fmt: skip
    see(f"cron {spec!r}", lambda spec=spec: declare(spec))
for every in (30, 0.5, 0.05, 0.001, 0.0001, 0, -1, timedelta(minutes=1), timedelta(milliseconds=50), "5", None, True):
    see(f"every {every!r}", lambda every=every: declare(every=every))
see("both", lambda: declare("* * * * *", every=1))
see("neither", lambda: declare())
see("tz of every", lambda: declare(every=1, tz="UTC"))
for zone in ("Europe/Madrid", "UTC", "Mars/Olympus", ZoneInfo("Europe/Madrid"), UTC, timezone(timedelta(hours=2)),
    timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=3), "BRT"), 5, ""):  # fmt: skip
    see(f"tz {zone!r}", lambda zone=zone: declare("0 3 * * *", tz=zone))
for options in ({"priority": "high"}, {"priority": "x"}, {"coalesce": True}, {"timeout": 1}, {"max_retries": 0},
    {"executor": "boat"}, {"backoff_ms": 5}):  # fmt: skip
    see(f"with {options}", lambda options=options: declare("0 3 * * *", **options))
see("not only one", lambda: [app.cron("0 3 * * *")(print).name, app.cron("0 3 * * *")(print).name])
