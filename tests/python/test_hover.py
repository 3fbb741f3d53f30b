"""What a task says of itself, to people in an editor or a shell and to tools that look at functions."""

import inspect
import pydoc
import typing

import pytest

from ardiq import Ardiq, Job

PROGRAM = '''
from ardiq import Ardiq, Job

app = Ardiq("redis://localhost:6379")

@app.task(max_retries=5)
async def resize(path: str, width: int = 800) -> str:
    """Make a picture smaller."""
    return path

async def main() -> None:
    await resize.enqueue("cat.png")
    resize.prepare("cat.png")
    resize.enqueue_sync("cat.png")
    await resize.request("cat.png")
    resize.options(delay=5)
    resize.app.pause_sync("resize")
    Job(app, "id").app.status_sync("id")
'''

app = Ardiq("redis://localhost:6379")


@app.task(max_retries=5)
async def resize(path: str, width: int = 800) -> str:
    """Make a picture smaller."""
    return path


@app.cron("0 4 * * *")
async def nightly() -> None:
    """Clean up."""


@app.task(executor="process")
def bare(path: str) -> None: ...


def test_a_task_looks_like_its_function() -> None:
    assert (resize.__doc__, nightly.__doc__) == ("Make a picture smaller.", "Clean up.")
    assert (resize.__name__, resize.__qualname__, resize.__module__) == ("resize", "resize", __name__)
    assert str(inspect.signature(resize)) == "(path: str, width: int = 800) -> str"
    assert typing.get_type_hints(resize) == {"path": str, "width": int, "return": str}
    assert inspect.unwrap(resize) is resize.fn
    assert "Make a picture smaller." in pydoc.plain(pydoc.render_doc(resize))
    # Nothing of its own to say: what a task is.
    assert bare.__doc__ is None
    assert "`enqueue` sends it to a worker" in pydoc.plain(pydoc.render_doc(bare))
    assert "`enqueue` sends it to a worker" in str(app.ref("elsewhere").__doc__)


def test_a_task_is_not_changed_by_what_its_function_has() -> None:
    def hello() -> None: ...

    hello.app, hello.enqueue = "not the app", None  # type: ignore[attr-defined]
    task = app.task(name="hello")(hello)
    assert task.app is app
    assert callable(task.enqueue)


def test_the_hints_of_a_job_resolve() -> None:
    """So that a task with a `Job` among its parameters keeps the annotations of the others."""
    assert typing.get_type_hints(Job)["id"] is str


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resize", "Make a picture smaller."),
        ("enqueue", "Put this call on the queue."),
        ("prepare", "The call that `enqueue` would make"),
        ("enqueue_sync", "blocks this thread until the server has answered"),
        ("request", "Enqueue this call and wait for its return value"),
        ("options", "This task with other options"),
        ("pause_sync", "`pause` for code without an event loop"),
        ("status_sync", "`status` for code without an event loop"),
    ],
)
def test_an_editor_shows_it(name: str, says: str) -> None:
    jedi = pytest.importorskip("jedi")
    used = PROGRAM.index("await resize")
    at = PROGRAM.index("resize" if name == "resize" else f".{name}(", used) + (name != "resize")
    line, column = PROGRAM.count("\n", 0, at) + 1, at - PROGRAM.rindex("\n", 0, at) - 1
    assert [says in shown.docstring() for shown in jedi.Script(PROGRAM).help(line, column)] == [True]
