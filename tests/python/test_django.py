"""Workers of a Django project, and its own tasks on them: with the real packages. Before Python 3.12, where Django 6
does not run, the tasks are those of its backport `django-tasks`.
"""

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
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
        INSTALLED_APPS = ["accounts", "ardiq.django", "shop"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).with_name("db")}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        ARDIQ_APP = "proj.jobs:app"
        TASKS = {
            "default": {
                "BACKEND": "ardiq.django.tasks.ArdiqBackend",
                "QUEUES": ["default", "mail"],
                "OPTIONS": {"max_retries": 1, "retry": [0]},
            }
        }
    """,
    "proj/jobs.py": """
        from ardiq import Ardiq

        app = Ardiq(priorities=["low", "middle", "high"])
        imports = []
    """,
    "proj/broken.py": """
        from proj.settings import *

        ARDIQ_APP = "proj.nothing:app"
        TASKS = {}
    """,
    "accounts/tasks.py": """
        from proj import jobs

        jobs.imports.append(__name__)

        @jobs.app.task(executor="process")
        def count() -> list[int]:
            return [Order.objects.count(), len(jobs.imports)]

        from shop.models import Order  # where it needs Django set up
    """,
    "shop/models.py": """
        from django.db import models

        class Order(models.Model):
            paid = models.BooleanField(default=False)
    """,
    "shop/signals.py": """
        from pathlib import Path

        from TASKS import signals

        def note(name):
            def receive(sender, task_result, **_):
                with Path(__file__).with_name("notes").open("a") as notes:
                    print(task_result.id, name, task_result.status, task_result.attempts, file=notes)
            return receive

        receivers = [note("enqueued"), note("started"), note("finished")]
        for signal, receiver in zip((signals.task_enqueued, signals.task_started, signals.task_finished), receivers):
            signal.connect(receiver)
    """,
    "shop/tasks.py": """
        import shop.signals
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
# Runs pieces of Python, which come as lines of JSON, and prints what `found` is after each.
SHELL = """
import django, json, sys
django.setup()
from shop import tasks
for line in sys.stdin:
    names = {"tasks": tasks}
    exec(json.loads(line), names)
    print(json.dumps(names["found"]), flush=True)
"""
MIGRATE = """
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
"""


class Site:
    """A Django project, and what is run in it."""

    def __init__(self, directory: Path, url: str, texts: dict[str, str]) -> None:
        self.directory = directory
        self.environment = {**os.environ, "ARDIQ_REDIS_URL": url, "DJANGO_SETTINGS_MODULE": "proj.settings"}
        for name, text in texts.items():
            path = directory / name
            path.parent.mkdir(exist_ok=True)
            if path.parent != directory:
                (path.parent / "__init__.py").touch()
            path.write_text(
                re.sub(r"(?m)^from (TASKS|django\.tasks) import", f"from {TASKS} import", textwrap.dedent(text))
            )
        self._shell = subprocess.Popen(
            [sys.executable, "-c", SHELL],
            cwd=directory,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

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

    def shell(self, text: str) -> Any:
        """What `found` is after a piece of Python, with Django set up."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(json.dumps(textwrap.dedent(text)) + "\n")
        self._shell.stdin.flush()
        found = self._shell.stdout.readline()
        assert found, "its error was printed"
        return json.loads(found)

    def close(self) -> None:
        self._shell.communicate()


@contextmanager
def open_site(directory: Path, texts: dict[str, str]) -> Iterator[Site]:
    with Server(binary=os.environ.get("ARDIQ_TEST_SERVER")) as server:
        site = Site(directory, server.url, texts)
        try:
            yield site
        finally:
            site.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), FILES) as site:
        yield site


@pytest.fixture(scope="module")
def ids(site: Site) -> list[str]:
    """Of tasks of Django's: what is enqueued here, and has run by then, like those of Ardiq's."""
    ids: list[str] = site.shell(
        f"""
        {textwrap.indent(MIGRATE, " " * 8)}
        import asyncio, datetime
        from accounts.tasks import count
        from shop.models import Order
        for order in [Order.objects.create() for _ in range(6)]:  # workers have four threads
            tasks.pay.options(task_id=f"pay-{{order.pk}}").enqueue_sync(order.pk)
        count.options(task_id="count").enqueue_sync()
        now = datetime.datetime.now(datetime.timezone.utc)
        found = [
            tasks.add.enqueue(1, b=2).id,
            asyncio.run(tasks.add_async.aenqueue(3, 4)).id,
            tasks.attempt.enqueue(failures=1).id,
            tasks.attempt.enqueue(failures=9).id,
            tasks.add.using(run_after=now + datetime.timedelta(hours=1)).enqueue(1).id,
            tasks.opaque.enqueue().id,
            tasks.send.enqueue().id,
        ]
        assert tasks.add.get_result(found[0]).status == "READY"
        """
    )
    lane = "from proj.jobs import app; found = app.queue('mail').inspect.counts_sync().ready"
    assert site.shell(lane)["high"] == 1
    words = ["--settings=proj.settings", "--burst", "--quiet", "--concurrency", "2", "--workers", "2"]
    queues = ["--queue", "default", "--queue", "mail"]
    site.run(str(site.directory / "manage.py"), "ardiq", *words, *queues, elsewhere=True)
    return ids


def test_manage_py_runs_the_tasks_of_installed_apps(site: Site, ids: list[str]) -> None:
    """On connections that are closed in between, as `CONN_MAX_AGE` is 0. A child process has Django set up before it
    imports the tasks of any app.
    """
    results = """
        from ardiq import Job
        from shop.models import Order
        found = [Order.objects.filter(paid=True).count()]
        found += [Job(tasks.app, f"pay-{number}").result_sync().value for number in range(1, 7)]
        found.append(Job(tasks.app, "count").result_sync().value)
    """
    assert site.shell(results) == [6, *(6 * [True]), [6, 1]]


def test_tasks_of_django_s_run_and_have_results(site: Site, ids: list[str]) -> None:
    results = f"""
        names = ["add", "add_async", "attempt", "attempt", "add", "opaque", "send"]
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
        ["SUCCESSFUL", 1, [], {}, ["mail"]],
    ]


def test_django_s_queues_and_priorities_are_ardiq_s(site: Site, ids: list[str]) -> None:
    assert ids[-1].startswith("mail:")
    lanes = "found = [tasks.add.get_backend()._bound(tasks.add.using(priority=p))._options.priority for p in PS]"
    assert site.shell(lanes.replace("PS", "(-100, -34, -33, 0, 33, 34, 100)")) == [
        *("low", "low", "middle", None, "middle", "high", "high")
    ]


def test_its_signals_are_sent_where_it_happens(site: Site, ids: list[str]) -> None:
    notes = (site.directory / "shop/notes").read_text().splitlines()
    of_one = [note.removeprefix(f"{ids[2]} ") for note in notes if note.startswith(ids[2])]
    assert of_one == ["enqueued READY 0", "started RUNNING 1", "started RUNNING 2", "finished SUCCESSFUL 2"]


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


def test_a_setting_that_names_no_app_is_refused(site: Site) -> None:
    refused = """
        from django.core.exceptions import ImproperlyConfigured
        from django.test import override_settings
        from ardiq.django._app import configured_app
        found = []
        for value in (None, "proj.nothing:app", "proj.settings:USE_TZ"):
            with override_settings(ARDIQ_APP=value):
                try:
                    configured_app()
                except ImproperlyConfigured as error:
                    found.append(str(error))
    """
    assert site.shell(refused) == [
        "ARDIQ_APP is None: name your app as MODULE:ATTR, such as 'shop.jobs:app'",
        "ARDIQ_APP = 'proj.nothing:app': No module named 'proj.nothing'",
        "ARDIQ_APP = 'proj.settings:USE_TZ' is bool, not an Ardiq app",
    ]
    shown = site.run("manage.py", "ardiq", "--settings=proj.broken", code=2)
    assert "ARDIQ_APP = 'proj.nothing:app': No module named 'proj.nothing'" in shown


def test_the_guide_s_example(tmp_path: Path) -> None:
    """Added to the settings of this project, and to its models."""
    texts = {"manage.py": FILES["manage.py"], "mail/__init__.py": "", **files(ROOT / "docs/django.md")}
    texts["proj/settings.py"] = textwrap.dedent(FILES["proj/settings.py"]) + texts["proj/settings.py"]
    texts["shop/models.py"] = FILES["shop/models.py"].replace("paid", "invoiced")
    with open_site(tmp_path, texts) as site:
        id_ = site.shell(
            f"""
            {textwrap.indent(MIGRATE, " " * 12)}
            from mail.tasks import greet
            from shop.models import Order
            tasks.send_invoice.enqueue_sync(Order.objects.create().pk)
            found = greet.enqueue("Ada").id
            """
        )
        [line] = examples(ROOT / "docs/django.md", "sh")
        program, *words = line.split()
        assert program == "python"
        site.run(*words, "--workers", "1", "--burst", "--queue", "default", "--queue", "mail")
        results = f"""
            from mail.tasks import greet
            from shop.models import Order
            found = [Order.objects.get().invoiced, greet.get_result({id_!r}).return_value]
        """
        assert site.shell(results) == [True, "Welcome, Ada"]


ADMIN = """
INSTALLED_APPS += ["django.contrib." + name for name in ("admin", "auth", "contenttypes", "sessions", "messages")]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
PROCESSORS = ["template.context_processors.request", "contrib.auth.context_processors.auth"]
PROCESSORS.append("contrib.messages.context_processors.messages")
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django." + name for name in PROCESSORS]},
    }
]
STATIC_URL = "static/"
ROOT_URLCONF = "proj.urls"
ALLOWED_HOSTS = ["testserver"]
"""
URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""


def test_staff_of_the_admin_see_the_dashboard(tmp_path: Path) -> None:
    """As the guide mounts it. People log in by the admin's own form, which leads back."""
    texts = {"manage.py": FILES["manage.py"], "mail/__init__.py": "", **files(ROOT / "docs/django.md")}
    texts["proj/settings.py"] = textwrap.dedent(FILES["proj/settings.py"]) + texts["proj/settings.py"] + ADMIN
    texts["shop/models.py"], texts["proj/urls.py"] = FILES["shop/models.py"], URLS
    with open_site(tmp_path, texts) as site:
        found = site.shell(
            f"""
            {textwrap.indent(MIGRATE, " " * 12)}
            import asyncio, httpx
            from django.conf import settings
            from django.contrib.auth.models import User
            from django.contrib.sessions.models import Session
            from django.test import Client
            from proj.asgi import application

            User.objects.create_superuser("ada", password="secret")
            User.objects.create_user("bob", password="secret", is_staff=True)
            User.objects.create_user("eve", password="secret")
            page, pausing = "/ardiq/q/default/tasks", "/ardiq/q/default/pause.json"

            async def shown(client):
                answer = await client.get(page)
                return answer.headers.get("location") or [r for r in ("admin", "viewer") if f"· {{r}}" in answer.text]

            async def visit(name):
                transport = httpx.ASGITransport(app=application)
                async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
                    seen = [await shown(client)]
                    login = seen[0]
                    await client.get(login)
                    form = {{"username": name, "password": "secret", "next": page}}
                    form["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
                    answer = await client.post(login, data=form)
                    seen.append(answer.headers.get("location"))
                    if name == "eve":  # the admin's form refuses her, another page of the site may not
                        other = Client()
                        await other.aforce_login(await User.objects.aget(username=name))
                        client.cookies["sessionid"] = other.cookies["sessionid"].value
                    seen.append(await shown(client))
                    own = {{"sec-fetch-site": "same-origin"}}
                    answer = await client.post(pausing, data={{"name": "work"}}, headers=own)
                    seen += [answer.status_code, answer.headers.get("location")]
                    if name == "ada":
                        old, settings.SECRET_KEY = settings.SECRET_KEY, "another"
                        settings.SECRET_KEY_FALLBACKS = [old]
                        seen += [await shown(client), await shown(client)]
                        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = old, []
                        await User.objects.filter(username=name).aupdate(is_active=False)
                        seen.append(await shown(client))
                        seen.append(await Session.objects.acount())
                    return seen

            async def visits():
                return [await visit(name) for name in ("ada", "bob", "eve")]

            found = asyncio.run(visits())
            """
        )
    page = "/ardiq/q/default/tasks"
    login = "/admin/login/?next=%2Fardiq%2Fq%2Fdefault%2Ftasks"
    assert found == [
        [login, page, ["admin"], 200, None, ["admin"], ["admin"], login, 1],
        [login, page, ["viewer"], 403, None],
        [login, None, login, 303, "/admin/login/?next=%2Fardiq%2F"],
    ]
