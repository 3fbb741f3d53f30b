"""The options of `ardiq run`: from the environment, for all workers; tasks of other modules; what is logged."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest
from projects import Project, eventually, stop

from ardiq import Ardiq
from ardiq._execution import logging as _logging
from ardiq.cli import build_parser, main
from ardiq.cli._environment import fill, variable, words
from ardiq.logs import JsonFormatter, TaskFields

VALUES = {
    "burst": ("1", True),
    "workers": ("3", 3),
    "concurrency": ("7", 7),
    "imports": ("proj.mail, proj.*.tasks", ["proj.mail", "proj.*.tasks"]),
    "queues": ("emails=3,reports", [("emails", 3), ("reports", 1)]),
    "verbose": ("yes", True),
    "quiet": ("off", False),
    "log_level": ("warning", "warning"),
    "log_format": ("json", "json"),
    "log_config": ("logging.toml", "logging.toml"),
    "allow_eviction": ("TRUE", True),
    "give_up_after": ("5m", 300.0),
    "drain_timeout": ("0", 0.0),
    "max_tasks": ("10", 10),
    "max_age": ("2h", 7200.0),
    "max_memory_mb": ("512", 512),
    "replace_stalled": ("30", 30.0),
    "health": ("127.0.0.1:9100", ("127.0.0.1", 9100)),
}


def parsed(*given: str) -> Any:
    arguments = build_parser().parse_args(["run", "jobs:app", *given])
    fill(arguments)
    return arguments


def test_every_option_has_a_variable_and_what_is_given_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {option.dest: variable(option) for option in parsed().options}
    assert options.keys() == VALUES.keys()
    assert all(getattr(parsed(), name) is None for name in options), "nothing given is nothing"
    for name, (text, _) in VALUES.items():
        monkeypatch.setenv(options[name], text)
    arguments = parsed()
    assert {name: getattr(arguments, name) for name in options} == {name: value for name, (_, value) in VALUES.items()}
    arguments = parsed("--workers", "1", "--queue", "x", "--log-format", "text")
    assert (arguments.workers, arguments.queues, arguments.log_format) == (1, [("x", 1)], "text")
    monkeypatch.setenv("ARDIQ_WORKERS", "")
    assert parsed().workers is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ARDIQ_WORKERS", "none"),
        ("ARDIQ_BURST", "perhaps"),
        ("ARDIQ_LOG_FORMAT", "xml"),
        ("ARDIQ_MAX_AGE", "soon"),
        ("ARDIQ_QUEUE", "a=0"),
        ("ARDIQ_IMPORT", "proj/mail"),
    ],
)
def test_a_variable_that_makes_no_sense_is_named(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, text)
    assert main(["run", "jobs:app"]) == 2
    assert re.match(f"ardiq: {name}: .*{text.split('=')[-1]}", capsys.readouterr().err)


def test_an_app_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert main(["run"]) == 2
    assert "ARDIQ_APP" in capsys.readouterr().err
    monkeypatch.setenv("ARDIQ_APP", "nowhere:app")
    assert main(["run"]) == 2
    assert "no module 'nowhere'" in capsys.readouterr().err


def test_a_worker_is_given_what_its_supervisor_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in parsed().options:
        monkeypatch.setenv(variable(option), VALUES[option.dest][0])
    told = parsed()
    given = words(told, without=("workers", "health"))
    monkeypatch.undo()
    again = parsed(*given)
    same = VALUES.keys() - {"workers", "health", "quiet"}
    assert {name: getattr(again, name) for name in same} == {name: getattr(told, name) for name in same}


def test_variables_reach_the_workers(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"APP": "jobs:app", "WORKERS": "2", "CONCURRENCY": "3", "LOG_FORMAT": "json"}.items():
        monkeypatch.setenv(f"ARDIQ_{name}", value)
    process = project.start()
    assert process.stderr is not None
    lines: list[Any] = []
    while sum("3 at once" in line["message"] for line in lines) < 2:
        lines.append(json.loads(process.stderr.readline()))
    code, errors = stop(process)
    assert code == 0, errors
    lines += [json.loads(line) for line in errors.splitlines()]
    assert sum("3 at once" in line["message"] for line in lines) == 2
    assert len({line["process"] for line in lines}) == 1 + 2


@pytest.fixture
def package(project: Project) -> Project:
    """A program whose tasks are in modules of their own."""
    for name in ("proj", "proj/mail", "proj/shop", "proj/plain"):
        (project.directory / name).mkdir()
        project.write(f"{name}/__init__.py", "")
    project.write("proj/main.py", (project.directory / "jobs.py").read_text().split("@app.task")[0])
    for name in ("mail", "shop"):
        project.write(
            f"proj/{name}/tasks.py",
            f"""
            from proj.main import app

            @app.task
            async def {name}() -> str:
                return {name!r}
            """,
        )
    return project


@pytest.mark.parametrize(
    "words", [("--import", "proj.*.tasks"), ("--import", "proj.mail.tasks", "--import", "proj.shop.tasks")]
)
def test_tasks_of_other_modules_are_imported(package: Project, words: tuple[str, ...]) -> None:
    package.enqueue("mail", "[]")
    package.enqueue("shop", "[]")
    process = package.start("proj.main:app", "--burst", *words)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert sorted(package.of_all("result")) == ['"mail"', '"shop"']
    assert "2 tasks: mail, shop" in errors


def test_an_app_may_name_its_modules(package: Project) -> None:
    package.write("proj/main.py", (package.directory / "proj/main.py").read_text().replace(
        "idle_timeout", "imports=['proj.*.tasks'], idle_timeout"
    ))  # fmt: skip
    package.enqueue("mail", "[]")
    package.write("alone.py", "import asyncio\nfrom proj.main import app\napp.burst = True\nasyncio.run(app.run())\n")
    process = package.start("proj.main:app", "--burst", "--workers", "2")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert package.of_all("state") == ["complete"]
    package.enqueue("shop", "[]")
    done = package.python("alone.py")
    assert done.returncode == 0, done.stderr
    assert package.of_all("state") == ["complete", "complete"]
    done = package.python("-m", "ardiq", "enqueue", "proj.main:app", "shop", "--args", "[1]")
    assert "too many positional arguments" in done.stderr, "the command knows the task, too"


def test_a_worker_without_tasks_says_what_is_missing_and_takes_nothing(package: Project) -> None:
    package.enqueue("mail", "[]")
    process = package.start("proj.main:app", "--workers", "2")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "has no tasks" in errors
    assert "--import" in errors
    assert package.queued() == [("queued", "0")]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("proj.nothing", "import of 'proj.nothing': No module named 'proj.nothing'"),
        ("nothing.*", "import of 'nothing.*': No module named 'nothing'"),
        ("proj.*.nothing", "import of 'proj.*.nothing': no module matches 'proj.*.nothing'"),
        ("proj/mail", "'proj/mail' is not the name of a module"),
        ("proj.broken", "importing 'proj.broken' failed: ZeroDivisionError"),
        ("proj.missing", "importing 'proj.missing' failed: ModuleNotFoundError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(package: Project, name: str, says: str) -> None:
    package.write("proj/broken.py", "1 / 0\n")
    package.write("proj/missing.py", "import no_such_thing\n")
    process = package.start("proj.main:app", "--import", name)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2, errors
    assert says in errors.splitlines()[-1]


@pytest.mark.parametrize("command", [["run"], ["status"]])
def test_a_program_that_runs_a_worker_on_import_is_told_how_to_guard_it(package: Project, command: list[str]) -> None:
    package.write("unguarded.py", "import asyncio\nfrom proj.main import app\n\nasyncio.run(app.run())\n")
    ended = subprocess.run(
        [sys.executable, "-m", "ardiq", *command, "unguarded:app"],
        cwd=package.directory, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert "unguarded.py, line 4: this program runs a worker when a command imports it" in line


@pytest.mark.parametrize("wrong", ["proj.mail", 5, [""], ["proj mail"], ["*.tasks"], [7]])
def test_imports_are_a_list_of_names(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="imports"):
        Ardiq("redis://127.0.0.1:1", imports=wrong)


LOUD = """
    import logging
    {setup}
    from ardiq import Ardiq
    from ardiq.logs import TaskFields
    app = Ardiq({url!r})
    library, own = logging.getLogger("library"), logging.getLogger("shop")

    def speak() -> None:
        for logger in (library, own):
            logger.debug("%s debugs", logger.name)
            logger.info("%s informs", logger.name, extra={{"order": 7}})

    @app.task
    async def on_the_loop() -> None:
        speak()

    @app.task
    def on_a_thread() -> None:
        speak()

    @app.task(executor="process")
    def in_a_child() -> None:
        speak()
"""
TASKS = ("on_the_loop", "on_a_thread", "in_a_child")


def loud(project: Project, setup: str, *options: str) -> list[str]:
    """What a burst run of all tasks says."""
    project.write("loud.py", LOUD.format(setup=setup, url=project.url))
    for name in TASKS:
        project.enqueue(name, "[]")
    process = project.start("loud:app", "--burst", *options)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return errors.splitlines()


def test_verbose_means_ardiq(project: Project) -> None:
    usual, verbose, quiet = (loud(project, "", *words) for words in ((), ("--verbose",), ("--quiet",)))
    for lines in (usual, verbose):
        assert sum("library informs" in line for line in lines) == 3, "children likewise"
        assert not any("debugs" in line for line in lines)
    assert [sum("DEBUG task succeeded" in line for line in lines) for lines in (usual, verbose)] == [0, 3]
    assert quiet == []
    assert sum("debugs" in line for line in loud(project, "", "--log-level", "debug")) == 6


def test_json_lines_name_the_task_that_wrote_them(project: Project) -> None:
    lines = [json.loads(line) for line in loud(project, "", "--log-format", "json")]
    informed = [line for line in lines if line["message"] == "shop informs"]
    assert {line["task"] for line in informed} == set(TASKS)
    for line in informed:
        assert {"attempt": 1, "queue": "default", "order": 7, "level": "INFO", "logger": "shop"}.items() <= line.items()
        assert line["task_id"].startswith(line["task"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
        assert line["lane"] == "default"
        assert line["worker"]
        assert "trace_id" not in line
    assert len({line["worker"] for line in informed}) == 1, "a child is its worker's"
    assert not any("task" in line for line in lines if "ready: worker" in line["message"])


def test_lines_for_a_terminal_are_short(project: Project) -> None:
    lines = loud(project, "", "--log-format", "dev")
    informed = [line for line in lines if "shop informs" in line]
    assert len(informed) == len(TASKS)
    for line in informed:
        task = next(name for name in TASKS if name in line)
        assert re.fullmatch(rf"\d\d:\d\d:\d\d\.\d{{3}} INFO     {task} \w+ #1  shop informs  order=7", line)
    assert not any("\033" in line for line in lines), "standard error is no terminal"


def test_where_the_program_configures_logging_it_counts(project: Project) -> None:
    setup = 'logging.basicConfig(format="mine %(name)s %(message)s", level="WARNING")'
    assert loud(project, setup) == []
    lines = loud(project, setup, "--verbose", "--log-format", "json")
    assert lines[0] == "mine ardiq --log-format has no effect: the program configures logging itself"
    assert sum("task succeeded" in line for line in lines) == 3
    assert [line for line in lines if not line.startswith("mine ardiq ")] == []


def test_a_program_s_configuration_that_does_not_name_ardiq_does_not_mute_it(project: Project) -> None:
    handlers = '"handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}}'
    setup = (
        'import logging.config; logging.config.dictConfig({"version": 1, "formatters": {"f": {"format": "mine %(name)s '
        f'%(message)s"}}}}, {handlers}, "root": {{"level": "INFO", "handlers": ["h"]}}}})'
    )
    lines = loud(project, setup)
    assert any(line.startswith("mine ardiq ready: ") for line in lines)


def test_a_program_may_log_to_standard_output(project: Project) -> None:
    setup = 'import sys; logging.basicConfig(format="mine %(name)s %(message)s", level="INFO", stream=sys.stdout)'
    project.write("loud.py", LOUD.format(setup=setup, url=project.url))
    project.enqueue("on_the_loop", "[]")
    done = project.python("-m", "ardiq", "run", "loud:app", "--burst")
    assert "mine shop shop informs" in done.stdout.splitlines()
    assert done.stderr == ""


CONFIGS = {
    "logging.json": """
        {"handlers": {"out": {"class": "logging.StreamHandler", "formatter": "own", "filters": ["task"]}},
         "filters": {"task": {"()": "ardiq.logs.TaskFields"}},
         "formatters": {"own": {"format": "own %(name)s [%(task)s] %(message)s"}},
         "root": {"level": "INFO", "handlers": ["out"]}}
    """,
    "logging.toml": """
        [handlers.out]
        class = "logging.StreamHandler"
        formatter = "own"
        filters = ["task"]
        [filters.task]
        "()" = "ardiq.logs.TaskFields"
        [formatters.own]
        format = "own %(name)s [%(task)s] %(message)s"
        [root]
        level = "INFO"
        handlers = ["out"]
    """,
    "logging.ini": """
        [loggers]
        keys = root
        [handlers]
        keys = out
        [formatters]
        keys = own
        [logger_root]
        level = INFO
        handlers = out
        [handler_out]
        class = StreamHandler
        formatter = own
        args = (sys.stderr,)
        [formatter_own]
        format = own %(name)s %(message)s
    """,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_may_configure_logging(project: Project, name: str) -> None:
    project.write(name, CONFIGS[name])
    lines = loud(project, "", "--log-config", name)
    assert all(line.startswith("own ") for line in lines), lines
    assert sum("shop informs" in line.replace(" []", "") for line in lines) == 3
    if not name.endswith(".ini"):
        said = {line for line in lines if "shop" in line}
        assert said == {f"own shop [{task}] shop informs" for task in TASKS}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("gone.json", None, "gone.json: No such file or directory"),
        ("broken.json", "{", "broken.json: Expecting"),
        ("list.json", "[]", "list.json: it must contain an object"),
        ("odd.toml", "[root]\nhandlers = ['nowhere']", "odd.toml: Unable to configure root logger"),
        ("empty.ini", "", "empty.ini: "),
    ],
)
def test_a_file_that_does_not_configure_logging_is_named(
    project: Project, name: str, text: str | None, says: str
) -> None:
    if text is not None:
        project.write(name, text)
    process = project.start("jobs:app", "--log-config", name)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.startswith(f"ardiq: --log-config: {says}")


def record(message: str = "said", **extra: Any) -> logging.LogRecord:
    return logging.getLogger("x").makeRecord("x", logging.INFO, "x.py", 1, message, (), None, extra=extra)


def test_whatever_is_logged_is_one_json_object_a_line() -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    for odd in (float("nan"), {1, 2}, {(1, 2): 3}, circle, b"x", "\ud800\n", object()):
        text = JsonFormatter().format(record("a\nb", odd=odd, task="mine"))
        assert "\n" not in text
        line = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        assert (line["message"], line["task"]) == ("a\nb", "mine")
        assert "odd" in line
    assert "task_id" not in json.loads(JsonFormatter().format(record()))


def test_fields_are_there_outside_of_tasks_and_what_a_record_has_stays() -> None:
    about = record(task="mine")
    assert TaskFields().filter(about)
    assert (about.task, about.task_id, about.attempt, about.queue) == ("mine", "", "", "")  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform != "linux", reason="a pipe is opened by its name in /proc")
class TestAFullPipe:
    """Nobody reads standard error: what is written there is lost, and nothing waits for it."""

    def fill(self, descriptor: int) -> None:
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while os.write(again, b"x" * 4096):
                pass
        except BlockingIOError:
            os.close(again)

    def start(self, project: Project, *words: str) -> tuple[Any, int]:
        reader, writer = os.pipe()
        process = project.start("jobs:app", *words, stderr=writer)
        eventually(lambda: len(project.workers()) == (2 if "--workers" in words else 1), 30)
        self.fill(writer)
        os.close(writer)
        return process, reader

    def test_a_stalled_worker_ends(self, project: Project) -> None:
        process, reader = self.start(project, "--replace-stalled", "1")
        project.enqueue("hog", "[]")
        assert process.wait(30) == 4
        os.close(reader)

    @pytest.mark.parametrize("words", [(), ("--workers", "2")])
    def test_a_worker_stops(self, project: Project, words: tuple[str, ...]) -> None:
        process, reader = self.start(project, "--verbose", *words)
        for _ in range(20):
            project.enqueue("note", '["x"]')
        eventually(lambda: len(project.notes()) == 20, 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert project.of_all("state") == ["complete"] * 20
        os.close(reader)

    def test_what_was_dropped_is_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_logging, "_PATIENCE_MS", 10)
        reader, writer = os.pipe()
        self.fill(writer)
        with os.fdopen(writer, "w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            handler = _logging.Stderr()
            for number in range(3):
                handler.emit(record(f"lost {number}"))
            os.read(reader, 65536)
            handler.emit(record("heard"))
        with os.fdopen(reader) as said:
            lines = said.read().splitlines()
        assert lines[-2:] == [
            "3 lines were dropped: nobody read standard error",
            "heard",
        ]
