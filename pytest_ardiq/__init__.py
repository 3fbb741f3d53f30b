"""Fixtures for tests of what uses Ardiq.

A package of its own, and importing Ardiq only when a fixture is used: pytest imports every plugin that is installed.
"""

import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ardiq import Ardiq
    from ardiq.testing import BackgroundWorker

__all__ = ["ardiq_app", "ardiq_server", "ardiq_worker"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("ardiq_app", "where the app under test is, MODULE:ATTR, such as shop.jobs:app", default="")
    about = "fail each test that would reach another server than that of the fixtures or an embedded:// one"
    parser.addini("ardiq_no_server", about, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ardiq_server: the test may reach a server, whatever ardiq_no_server says")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with _guarding(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with _guarding(item):
        return (yield)


def _guarding(item: pytest.Item) -> AbstractContextManager[None]:
    if not item.config.getini("ardiq_no_server") or item.get_closest_marker("ardiq_server"):
        return nullcontext()
    from ardiq.testing import no_server

    return no_server()


@pytest.fixture(scope="session")
def ardiq_server() -> Iterator[str]:
    """URL of a server for this run's tests: an embedded one, or what ARDIQ_TEST_SERVER names.

    That is a URL, or the path of a server to start instead of the one from the `embedded` extra.
    """
    given = os.environ.get("ARDIQ_TEST_SERVER") or None
    if given is not None and "://" in given:
        yield given
        return
    from ardiq.embedded import Server

    with Server(binary=given) as server:
        yield server.url


@pytest.fixture
def ardiq_app(pytestconfig: pytest.Config, ardiq_server: str) -> "Iterator[Ardiq]":
    """The app that the ini option `ardiq_app` names, else a new one. Its queue on `ardiq_server` is this test's."""
    from ardiq import Ardiq
    from ardiq.testing import on_server

    where = pytestconfig.getini("ardiq_app")
    app = _load(where) if where else Ardiq(ardiq_server)
    with on_server(app, ardiq_server):
        yield app


@pytest.fixture
def ardiq_worker(ardiq_app: "Ardiq") -> "Iterator[BackgroundWorker]":
    """A worker of `ardiq_app`, on a thread, while the test lasts."""
    from ardiq.testing import worker

    with worker(ardiq_app) as running:
        yield running


def _load(where: str) -> "Ardiq":
    from ardiq.cli import Refusal, load_app

    try:
        return load_app(where)
    except Refusal as refusal:
        pytest.fail(f"the ini option ardiq_app: {refusal}", pytrace=False)
