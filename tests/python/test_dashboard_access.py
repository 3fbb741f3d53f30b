"""Who gets into the dashboard, what each role sees, and what other sites cannot do."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from boards import SCREENS, SECRET, STATES, browser, fill
from starlette.requests import Request
from starlette.responses import RedirectResponse

from ardiq import Ardiq
from ardiq.web import Token, TrustedHeader, User, Users, dashboard

TOKEN = "a token of many bytes"
FORM = {"content-type": "application/x-www-form-urlencoded"}
OWN = {"sec-fetch-site": "same-origin", **FORM}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'"


def known(user: Any) -> Callable[[Request], Any]:
    return lambda request: user


@pytest.mark.parametrize("role", ["viewer", "operator", "admin", "nothing", "elsewhere", "nobody"])
async def test_each_role_gets_what_it_may_of_each_screen(app: Ardiq, role: str) -> None:
    ids = await fill(app)
    user = {
        "nothing": User("ada", may=()),
        "elsewhere": User("ada", "admin", queues=["other-*"]),
        "nobody": None,
    }.get(role) or (None if role == "nobody" else User("ada", role))
    status = {"nothing": 403, "elsewhere": 404, "nobody": 401}.get(role, 200)
    paths = [*SCREENS, *(f"tasks?state={state}" for state in STATES), *(f"tasks/{id}" for id in ids.values())]
    async with browser(dashboard(app, auth=known(user))) as client:
        for path in [*paths, f"workflows/{ids['workflow']}"]:
            name, mark, words = path.partition("?")
            for each in (path, f"{name or 'overview'}.json{mark}{words}"):
                answer = await client.get(f"/q/{app.queue_name}/{each}")
                assert answer.status_code == status, each
                assert SECRET not in answer.text
                for method in ("POST", "PUT", "DELETE", "PATCH"):
                    answer = await client.request(method, f"/q/{app.queue_name}/{each}", headers=OWN)
                    assert answer.status_code == 405, each
        done = await client.get(f"/q/{app.queue_name}/tasks/{ids['done']}.json")
        assert ("onload=x" in done.text) is (role in ("operator", "admin"))
        searching = await client.get(f"/q/{app.queue_name}/dead?q=bad")
        assert searching.status_code == (403 if role == "viewer" else status)
        live = await client.get(f"/q/{app.queue_name}/live") if status != 200 else None
        assert live is None or live.status_code == status


async def test_what_is_hidden_cannot_be_searched_for(app: Ardiq) -> None:
    await fill(app)
    async with browser(dashboard(app, auth="nobody", redact=lambda name: name == "customer_id")) as client:

        async def found(words: str) -> int:
            answer = await client.get(f"/q/{app.queue_name}/tasks.json?{words}")
            return len(answer.json()["tasks"]) if answer.status_code == 200 else answer.status_code

        assert await found("state=dead&q=bad") == 1
        assert await found("state=dead&arg=order=bad") == 1
        assert await found("state=dead&arg=0=bad") == 1
        assert await found(f"state=dead&q={SECRET}") == 0
        assert await found(f"state=dead&arg=1={SECRET}") == 0
        assert await found(f"state=dead&arg=card_token={SECRET}") == 403
        assert await found("state=held&of=sync(customer_id=99)") == 403
        pauses = (await client.get(f"/q/{app.queue_name}/pauses.json")).json()["pauses"]
        assert [(pause["id"], pause["value"]) for pause in pauses] == [("sync(customer_id=…)", None)]


async def test_every_response_has_the_headers(app: Ardiq) -> None:
    board = dashboard(app, auth=Token(TOKEN), hosts=["testserver"])
    async with browser(board) as client:
        for path in ("/", "/healthz", "/nowhere", "/static/nothing.js", f"/q/{app.queue_name}/", "/q/other/tasks.json"):
            for headers in ({}, {"authorization": f"Bearer {TOKEN}"}, {"host": "evil.example"}):
                answer = await client.get(path, headers=headers)
                assert answer.headers["content-security-policy"].startswith(POLICY)
                assert answer.headers["content-security-policy"].endswith("frame-ancestors 'none'")
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["x-frame-options"] == "DENY"
                assert answer.headers["referrer-policy"] == "same-origin"
                assert answer.headers["cache-control"] == "no-store"
        post = await client.post("/login")
        assert post.headers["content-security-policy"].startswith(POLICY)


async def test_metrics_of_queues_without_workers_are_for_whom_may_have_them(app: Ardiq) -> None:
    other = app.queue(f"{app.queue_name}-other")
    await app.ref("work").enqueue(1)
    await other.ref("work").options(delay_ms=3_600_000).enqueue(2)
    names = [app.queue_name, other.queue_name]

    async def seen(user: User) -> tuple[int, str]:
        async with browser(dashboard(app, auth=lambda _: user, queues=names)) as client:
            answer = await client.get("/metrics")
            return answer.status_code, answer.text

    status, text = await seen(User("ada", "admin"))
    assert status == 200
    for name, state in zip(names, ("queued", "scheduled"), strict=True):
        assert f'ardiq_queue_tasks{{queue="{name}",state="{state}"}} 1' in text.splitlines()
        assert f'ardiq_queue_workers{{queue="{name}"}} 0' in text.splitlines()
    assert text.count("# TYPE ardiq_queue_tasks gauge") == 1
    status, text = await seen(User("bob", "admin", queues=["*-other"]))
    assert status == 200
    assert f'queue="{app.queue_name}"' not in text
    assert f'queue="{other.queue_name}"' in text
    assert (await seen(User("eve", may={"view"})))[0] == 403
    async with browser(dashboard(app, auth=Token(TOKEN))) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"})).status_code == 200


async def test_an_admin_may_embed_it(app: Ardiq) -> None:
    async with browser(dashboard(app, auth="nobody", embed=["https://admin.example.com"])) as client:
        answer = await client.get(f"/q/{app.queue_name}/")
        assert answer.headers["content-security-policy"].endswith("frame-ancestors https://admin.example.com")
        assert "x-frame-options" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://testserver"}, 403),
        ({"origin": "http://testserver"}, 303),
        ({"origin": "https://testserver"}, 403),
        ({"origin": "http://testserver.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
        ({"authorization": "Bearer x"}, 303),
        ({"sec-fetch-site": "same-origin", "content-type": "text/plain"}, 415),
        ({"sec-fetch-site": "same-origin", "content-type": "multipart/form-data"}, 415),
    ],
)
async def test_forms_of_other_sites_are_refused(app: Ardiq, headers: dict[str, str], status: int) -> None:
    async with browser(dashboard(app, auth=Token(TOKEN))) as client:
        answer = await client.post("/login", content=f"token={TOKEN}", headers={**FORM, **headers})
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9180", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:9180", 200),
        ("[::1]:9180", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
async def test_only_names_of_this_server_are_answered(app: Ardiq, host: str, status: int) -> None:
    board = dashboard(app, auth="nobody", hosts=["localhost", "127.0.0.1", "[::1]"])
    async with browser(board) as client:
        assert (await client.get("/healthz", headers={"host": host})).status_code == status


async def test_a_token_is_typed_once(app: Ardiq, monkeypatch: pytest.MonkeyPatch) -> None:
    async with browser(dashboard(app, auth=Token(TOKEN, role="viewer")), "https://testserver") as client:
        page = f"/q/{app.queue_name}/"
        refused = await client.get(page)
        assert (refused.status_code, 'name="token"' in refused.text) == (401, True)
        wrong = await client.post("/login", content="token=wrong", headers=OWN)
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        right = await client.post("/login", content=f"token={TOKEN}", headers=OWN)
        cookie = right.headers["set-cookie"]
        assert (right.status_code, right.headers["location"]) == (303, "/")
        assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/", "Max-Age=43200"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
        assert 'action="/logout"' in (await client.get(page)).text
        value = client.cookies["ardiq"]
        name, until, mac = value.strip('"').split("|")
        for wrong in ("", "|", f"{name}|{int(until) + 1}|{mac}", f"ada|{until}|{mac}", f"{name}|{'9' * 5000}|{mac}"):
            assert (await client.get(page, headers={"cookie": f"ardiq={wrong}"})).status_code == 401
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda: float(until) + 1)
            assert (await client.get(page)).status_code == 401
        await client.post("/logout", headers=OWN)
        assert (await client.get(page)).status_code == 401
        assert (await client.get(page, headers={"authorization": f"Bearer {TOKEN}"})).status_code == 200
        assert (await client.get(page, headers={"authorization": "Bearer wrong"})).status_code == 401


async def test_people_of_a_file_log_in(app: Ardiq, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"# name:role:password\n\nada:admin:{Users.hashed('lovelace')}\nbob:viewer:{Users.hashed('x')}\n")
    async with browser(dashboard(app, auth=Users(file))) as client:
        page = f"/q/{app.queue_name}/"
        for form in ("name=ada&password=x", "name=eve&password=lovelace", "name=ada", "", "x" * 10_000):
            assert (await client.post("/login", content=form, headers=OWN)).status_code == 401
        await client.post("/login", content="name=ada&password=lovelace", headers=OWN)
        assert "ada · admin" in (await client.get(page)).text
        forged = client.cookies["ardiq"].replace("ada", "bob")
        assert (await client.get(page, headers={"cookie": f"ardiq={forged}"})).status_code == 401


@pytest.mark.parametrize(
    ("client", "headers", "role"),
    [
        ("10.1.2.3", [("x-forwarded-user", "ada")], "admin"),
        ("10.1.2.3", [("x-forwarded-user", "bob")], "viewer"),
        ("10.1.2.3", [("x-forwarded-user", "bob"), ("x-forwarded-user", "ada")], None),
        ("10.1.2.3", [("x-forwarded-user", " ")], None),
        ("10.1.2.3", [], None),
        ("192.168.1.1", [("x-forwarded-user", "ada")], None),
        ("a socket", [("x-forwarded-user", "ada")], None),
    ],
)
async def test_a_header_counts_from_its_proxy_alone(
    app: Ardiq, client: str, headers: list[tuple[str, str]], role: str | None
) -> None:
    auth = TrustedHeader("X-Forwarded-User", proxies=["10.0.0.0/8"], roles={"ada": "admin"})
    async with browser(dashboard(app, auth=auth), client=(client, 1)) as asking:
        answer = await asking.get(f"/q/{app.queue_name}/", headers=headers)
        assert (answer.status_code == 200) is (role is not None)
        assert role is None or f"· {role}" in answer.text


async def test_your_own_function_says_who_asks(app: Ardiq) -> None:
    async def session(request: Request) -> User | RedirectResponse:
        name = request.query_params.get("as")
        return User(name) if name else RedirectResponse("https://example.com/login", 303)

    async with browser(dashboard(app, auth=session)) as client:
        assert (await client.get(f"/q/{app.queue_name}/?as=ada")).status_code == 200
        away = await client.get(f"/q/{app.queue_name}/")
        assert (away.status_code, away.headers["location"]) == (303, "https://example.com/login")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dashboard(Ardiq("redis://127.0.0.1:1"), auth=None), "auth must be"),  # type: ignore[arg-type]
        (lambda: dashboard(Ardiq("redis://127.0.0.1:1"), auth="everybody"), "auth must be"),  # type: ignore[arg-type]
        (lambda: Token("short"), "too short"),
        (lambda: Token(""), "missing"),
        (lambda: Token(TOKEN, role="god"), "role must be"),
        (lambda: TrustedHeader("x-user", proxies=[]), "at least one network"),
        (lambda: TrustedHeader("x-user", proxies=["nowhere"]), "nowhere"),
        (lambda: User("ada", "god"), "role must be"),
        (lambda: User("ada", may=["fly"]), "there is no permission 'fly'"),
        (lambda: User("ada", queues="mail"), "sequence of patterns"),
    ],
)
def test_what_would_let_nobody_or_everybody_in_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)):
        make()


def test_the_dashboard_cannot_be_had_without_saying_who_may() -> None:
    with pytest.raises(TypeError, match="auth"):
        dashboard(Ardiq("redis://127.0.0.1:1"))  # type: ignore[call-arg]
