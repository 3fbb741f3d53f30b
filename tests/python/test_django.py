"""Workers of a Django project, and its own tasks on them: with the real packages. Before Python 3.12, where Django 6
does not run, the tasks are those of its backport `django-tasks`.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
import pytest
from documents import ROOT, examples, files

from ardiq.embedded import Server

TASKS = "django.tasks" if django.VERSION >= (6,) else "django_tasks"
FILES = {
    "manage.py": """
        import os, sys
        from django.core.management import execute_from_command_line

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
        execute_from_command_line(sys.argv)
    """,
    "proj/settings.py": """
        from pathlib import Path

        SECRET_KEY = "for tests"
        USE_TZ = True
        INSTALLED_APPS = ["ardiq.django", "shop"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db")}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        ARDIQ_APP = "proj.jobs:app"
        TASKS = {
            "default": {
                "BACKEND": "ardiq.django.tasks.ArdiqBackend",
                "QUEUES": ["default", "mail"],
                "OPTIONS": {"max_retries": 1, "backoff_ms": 1},
            }
        }
    """,
    "proj/jobs.py": """
        from ardiq import Ardiq

        app = Ardiq(priorities=["low", "middle", "high"])
    """,
    "shop/models.py": """
        from django.db import models

        class Order(models.Model):
            paid = models.BooleanField(default=False)
    """,
    "shop/tasks.py": """
        from django.db import connection
        from TASKS import task

        from ardiq import current_task
        from proj.jobs import app
        from shop.models import Order

        class Refused(Exception):
            pass

        @app.task
        def pay(order: int) -> bool:
            was_closed = connection.connection is None
            Order.objects.filter(pk=order).update(paid=True)
            return was_closed

        @app.task(executor="process")
        def count() -> int:
            return Order.objects.count()

        @task
        def add(a, b=0):
            return a + b

        @task
        async def add_async(a, b):
            return a + b

        @task(takes_context=True)
        def attempt(context, *, failures=0):
            if context.attempt <= failures:
                raise Refused("not\\nyet")
            return [context.attempt, context.task_result.id, current_task().task_id]

        @task(queue_name="mail", priority=90)
        def send():
            return [current_task().queue]

        @task
        def opaque():
            return object()
    """,
}


class Site:
    """A Django project, and what is run in it."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.environment = {**os.environ, "ARDIQ_REDIS_URL": url, "DJANGO_SETTINGS_MODULE": "proj.settings"}
        for name, text in FILES.items():
            path = directory / name
            path.parent.mkdir(exist_ok=True)
            if path.parent != directory:
                (path.parent / "__init__.py").touch()
            path.write_text(textwrap.dedent(text).replace("TASKS import", f"{TASKS} import"))

    def run(self, *words: str, code: int = 0, elsewhere: bool = False) -> str:
        """What a program prints."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd="/" if elsewhere else self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def work(self, *words: str) -> None:
        """A worker until there is nothing to do."""
        self.run(str(self.directory / "manage.py"), "ardiq", "--burst", "--quiet", *words, elsewhere=True)

    def shell(self, text: str) -> Any:
        """What `found` is after a piece of Python, with Django set up."""
        head = "import django, json; django.setup(); from shop import tasks\n"
        return json.loads(self.run("-c", f"{head}{textwrap.dedent(text)}\nprint(json.dumps(found))"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        yield Site(tmp_path, server.url)


def test_manage_py_runs_the_tasks_of_installed_apps(site: Site) -> None:
    """On connections that are closed in between, as `CONN_MAX_AGE` is 0; a child process has Django set up, too."""
    site.run("manage.py", "migrate", "--run-syncdb", "--verbosity", "0")
    site.shell(
        """
        from shop.models import Order
        found = [tasks.pay.options(task_id=f"pay-{order.pk}").enqueue_sync(order.pk).id
                 for order in [Order.objects.create() for _ in range(3)]]
        tasks.count.options(task_id="count").enqueue_sync()
        """
    )
    site.work("--settings=proj.settings", "--concurrency", "1", "--workers", "2")
    results = """
        from ardiq import Job
        from shop.models import Order
        found = [Order.objects.filter(paid=True).count()]
        found += [Job(tasks.app, name).result_sync().value for name in ("pay-1", "pay-2", "pay-3", "count")]
    """
    assert site.shell(results) == [3, True, True, True, 3]


def test_tasks_of_django_s_run_and_have_results(site: Site) -> None:
    ids = site.shell(
        """
        import asyncio, datetime
        now = datetime.datetime.now(datetime.timezone.utc)
        found = [
            tasks.add.enqueue(1, b=2).id,
            asyncio.run(tasks.add_async.aenqueue(3, 4)).id,
            tasks.attempt.enqueue(failures=1).id,
            tasks.attempt.enqueue(failures=9).id,
            tasks.add.using(run_after=now + datetime.timedelta(hours=1)).enqueue(1).id,
            tasks.opaque.enqueue().id,
        ]
        assert tasks.add.get_result(found[0]).status == "READY"
        """
    )
    site.work()
    results = f"""
        names = ["add", "add_async", "attempt", "attempt", "add", "opaque"]
        results = [getattr(tasks, name).get_result(identity) for name, identity in zip(names, {ids})]
        found = [[str(r.status), r.attempts, r.args, r.kwargs, r._return_value] for r in results]
        failed = results[3]
        assert failed.enqueued_at <= failed.started_at <= failed.finished_at
        assert failed.enqueued_at.tzinfo is not None
        assert [each.exception_class_path for each in failed.errors] == ["builtins.Exception", "shop.tasks.Refused"]
        assert failed.errors[1].exception_class is tasks.Refused
        assert "raise Refused" in failed.errors[1].traceback
        assert [each.exception_class for each in results[5].errors] == [TypeError, TypeError]
        from {TASKS}.exceptions import TaskResultDoesNotExist
        try:
            tasks.add.get_result("nowhere")
        except TaskResultDoesNotExist:
            pass
        else:
            raise AssertionError
    """
    assert site.shell(results) == [
        ["SUCCESSFUL", 1, [1], {"b": 2}, 3],
        ["SUCCESSFUL", 1, [3, 4], {}, 7],
        ["SUCCESSFUL", 2, [], {"failures": 1}, [2, ids[2], ids[2]]],
        ["FAILED", 2, [], {"failures": 9}, None],
        ["READY", 0, [1], {}, None],
        ["FAILED", 2, [], {}, None],
    ]


def test_arguments_that_json_cannot_keep_are_refused(site: Site) -> None:
    refused = """
        found = []
        for value in (object(), {1, 2}):
            try:
                tasks.add.enqueue(value)
            except TypeError as error:
                found.append(str(error)[:16])
    """
    assert site.shell(refused) == ["Unsupported type", "Unsupported type"]


def test_django_s_queues_and_priorities_are_ardiq_s(site: Site) -> None:
    id_ = site.shell("found = tasks.send.enqueue().id")
    assert id_.startswith("mail:")
    lane = "from proj.jobs import app; found = app.queue('mail').inspect.counts_sync().ready"
    assert site.shell(lane)["high"] == 1
    site.work("--queue", "mail")
    assert site.shell(f"found = tasks.send.get_result({id_!r}).return_value") == ["mail"]
    lanes = "found = [tasks.add.get_backend()._bound(tasks.add.using(priority=p))._options.priority for p in PS]"
    assert site.shell(lanes.replace("PS", "(-100, -34, -33, 0, 33, 34, 100)")) == [
        *("low", "low", "middle", None, "middle", "high", "high")
    ]


def test_its_signals_are_sent_where_it_happens(site: Site) -> None:
    (site.directory / "shop/signals.py").write_text(
        textwrap.dedent(
            f"""
            from {TASKS}.signals import task_enqueued, task_finished, task_started

            def note(name):
                def receive(sender, task_result, **_):
                    with open({str(site.directory / "notes")!r}, "a") as notes:
                        print(name, task_result.status, task_result.attempts, file=notes)
                return receive

            receivers = [note("enqueued"), note("started"), note("finished")]
            for signal, receiver in zip((task_enqueued, task_started, task_finished), receivers):
                signal.connect(receiver)
            """
        )
    )
    with (site.directory / "shop/tasks.py").open("a") as tasks:
        tasks.write("\nimport shop.signals\n")
    site.shell("found = tasks.attempt.enqueue(failures=1).id")
    site.work()
    notes = (site.directory / "notes").read_text().splitlines()
    assert notes == ["enqueued READY 0", "started RUNNING 1", "started RUNNING 2", "finished SUCCESSFUL 2"]


def test_the_guide_s_example(tmp_path: Path) -> None:
    """Added to the settings of this project, and to its models."""
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        site = Site(tmp_path, server.url)
        texts = files(ROOT / "docs/django.md")
        texts["proj/settings.py"] = textwrap.dedent(FILES["proj/settings.py"]) + texts["proj/settings.py"]
        texts["mail/tasks.py"] = texts["mail/tasks.py"].replace("django.tasks", TASKS)
        texts["shop/models.py"] = textwrap.dedent(FILES["shop/models.py"]).replace("paid", "invoiced")
        for name, text in texts.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        (tmp_path / "mail/__init__.py").touch()
        site.run("manage.py", "migrate", "--run-syncdb", "--verbosity", "0")
        id_ = site.shell(
            """
            from mail.tasks import greet
            from shop.models import Order
            tasks.send_invoice.enqueue_sync(Order.objects.create().pk)
            found = greet.enqueue("Ada").id
            """
        )
        [line] = examples(ROOT / "docs/django.md", "sh")
        program, *words = line.split()
        assert program == "python"
        site.run(*words, "--burst", "--queue", "default", "--queue", "mail")
        results = f"""
            from mail.tasks import greet
            from shop.models import Order
            found = [Order.objects.get().invoiced, greet.get_result({id_!r}).return_value]
        """
        assert site.shell(results) == [True, "Welcome, Ada"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("None", "ARDIQ_APP is None: name your app as MODULE:ATTR"),
        ("'proj.nothing:app'", "No module named 'proj.nothing'"),
        ("'proj.settings:USE_TZ'", "is bool, not an Ardiq app"),
    ],
)
def test_a_setting_that_names_no_app_is_refused(site: Site, value: str, message: str) -> None:
    with (site.directory / "proj/settings.py").open("a") as settings:
        settings.write(f"\nARDIQ_APP = {value}\nTASKS = {{}}\n")
    (site.directory / "shop/tasks.py").write_text("")
    assert message in site.run("manage.py", "ardiq", code=2)
