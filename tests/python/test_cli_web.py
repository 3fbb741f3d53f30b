"""`ardiq web`: whom it lets in, what it refuses to do, and a browser's view of it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from helpers import SOON_S, Script

from ardiq import Ardiq
from ardiq.web import Users

SERVE = "import sys\nfrom ardiq.cli import program\nsys.argv = ['ardiq', 'web', *sys.argv[1:]]\nprogram()\n"
TOKEN = "a token of many bytes"
Start = Callable[..., Script]


def address(script: Script) -> str:
    """Where it listens."""
    line = script.line()
    assert line.startswith("dashboard at http://127.0.0.1:")
    return line.split()[2].rstrip("/,")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--bind 0.0.0.0:0", "--bind 0.0.0.0:0 is reachable from elsewhere: set ARDIQ_WEB_TOKEN, or --users FILE, or"),
        ("--bind [::]:0", "is reachable from elsewhere"),
        ("--bind 127.0.0.1", "expected HOST:PORT"),
        ("--trust-header x-user", "belong together"),
        ("--trusted-proxy 10.0.0.0/8", "belong together"),
        ("--trust-header x-user --trusted-proxy here", "does not appear to be an IPv4 or IPv6 network"),
        ("--trust-header x-user --trusted-proxy 10.0.0.0/8 --users file", "cannot be combined"),
        ("--users /no/such/file", "No such file or directory"),
        ("--bind 203.0.113.1:1 --trust-header x-user --trusted-proxy 10.0.0.0/8", "--bind 203.0.113.1:1: "),
    ],
)
def test_what_it_refuses(
    ardiq: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    monkeypatch.delenv("ARDIQ_WEB_TOKEN", raising=False)
    code, text = ardiq("web", "redis://127.0.0.1:1", *words.split())
    assert code in (1, 2)
    assert told in text


def test_a_short_token_is_refused(ardiq: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARDIQ_WEB_TOKEN", "short")
    assert ardiq("web", "redis://127.0.0.1:1") == (
        2,
        "ardiq: the dashboard's token is too short; it must have at least 16 bytes\n",
    )


async def test_it_serves_a_queue_by_its_url_and_pushes_what_changes(
    app: Ardiq, run_script: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.task
    async def nothing() -> None: ...

    monkeypatch.delenv("ARDIQ_WEB_TOKEN", raising=False)
    script = run_script(SERVE, app.redis_url, "--queue", app.queue_name, "--bind", "127.0.0.1:0")
    base = address(script)
    async with httpx.AsyncClient(base_url=base, timeout=SOON_S) as client:
        assert (await client.get("/", follow_redirects=True)).status_code == 200
        assert (await client.get("/", headers={"host": "evil.example"})).status_code == 421
        async with client.stream("GET", f"/q/{app.queue_name}/live") as live:
            assert live.headers["content-type"].startswith("text/event-stream")
            lines = live.aiter_lines()
            assert await anext(lines) == "retry: 3000"
            await nothing.enqueue()
            async for line in lines:
                told = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if told.get("id") == "tiles" and "<b>1</b>" in told["html"]:
                    break
            script.signal(signal.SIGINT)  # a browser that listens does not keep it from ending
            assert script.end()[0] == 130


def test_people_log_in_who_have_the_token(app: Ardiq, run_script: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARDIQ_WEB_TOKEN", TOKEN)
    base = address(run_script(SERVE, app.redis_url, "--bind", "127.0.0.1:0"))
    with httpx.Client(base_url=base, timeout=SOON_S) as client:
        assert client.get("/q/default/").status_code == 401
        assert client.post("/login", data={"token": TOKEN}).status_code == 403
        answer = client.post("/login", data={"token": TOKEN}, headers={"origin": base}, follow_redirects=True)
        assert (answer.status_code, "token · viewer" in answer.text) == (200, True)


def test_people_of_a_file_log_in(app: Ardiq, run_script: Start, tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"ada:operator:{Users.hashed('lovelace')}\n")
    base = address(run_script(SERVE, app.redis_url, "--bind", "127.0.0.1:0", "--users", str(tmp_path / "users")))
    with httpx.Client(base_url=base, timeout=SOON_S) as client:
        form = {"name": "ada", "password": "lovelace"}
        answer = client.post("/login", data=form, headers={"origin": base}, follow_redirects=True)
        assert (answer.status_code, "ada · operator" in answer.text) == (200, True)
