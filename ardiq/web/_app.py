"""The dashboard as an ASGI app: which user, which screen, and what comes of it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .._core import Core
from ..cli._output import json_text
from ..errors import ArdiqError, BadArgument, BrokerError
from . import _pages, _posting
from ._actions import ACTIONS, Action
from ._asked import Asked, Refused
from ._auth import COOKIE, SESSION_S, Auth, Form, check_auth, who_asks
from ._guard import Guard
from ._live import MOST_STREAMS, Live, follow
from ._redact import Redactor
from ._routes import SCREENS, Screen
from ._samples import Samples
from ._users import User
from .actions.told import Form as Filled
from .actions.told import Question, Told

if TYPE_CHECKING:
    from ..app import Ardiq

_LARGEST_LOGIN = 4096
_A_YEAR = "public, max-age=31536000, immutable"
_METRICS = "text/plain; version=0.0.4"
_UNBUFFERED = {"x-accel-buffering": "no"}


def dashboard(
    app: "Ardiq",
    *,
    auth: Auth,
    queues: Sequence[str] | None = None,
    redact: Callable[[str], bool] | None = None,
    hosts: Collection[str] | None = None,
    embed: Sequence[str] = (),
) -> "Dashboard":
    """The dashboard of an app's queues, an ASGI app to mount: `fastapi.mount("/ardiq", dashboard(app, auth=…))`.

    Args:
        app: whose tasks it shows; its signatures name positional arguments.
        auth: names the user: a function that takes the `Request` and returns a `User`, a response to send instead (such
            as a redirect to your login), or None, also as a coroutine; or `Token()`, `Users(file)`, `TrustedHeader(…)`;
            or "nobody": everybody who reaches it may do everything.
        queues: the names of the queues it shows; None: the app's own.
        redact: whether to hide the values of arguments and keys of that name, besides those like `password`.
        hosts: the names by which requests may call this server, without port, as a protection against DNS rebinding;
            others get 421. None: any, which is right behind an application that checks them.
        embed: origins that may show it in a frame, such as "https://admin.example.com".

    Raises:
        TypeError: `auth` cannot name a user.
        ValueError: no queue can have that name.
    """
    names = [app.queue_name] if queues is None else list(dict.fromkeys(queues))
    apps = {name: app if name == app.queue_name else app.queue(name) for name in names}
    return Dashboard(apps, check_auth(auth), Redactor(redact), hosts, embed)


class Dashboard:
    """What `dashboard` returns: an ASGI app."""

    def __init__(
        self,
        apps: "dict[str, Ardiq]",
        auth: Auth,
        redactor: Redactor,
        hosts: Collection[str] | None,
        embed: Sequence[str],
    ) -> None:
        self._apps, self._auth, self._redactor = apps, auth, redactor
        self._samples = {name: Samples(app) for name, app in apps.items()}
        self._live: dict[tuple[str, str], Live] = {}
        self._streams = 0
        screens = [
            Route(f"/q/{{queue}}/{screen.path}{twin}", partial(self._screen, screen, bool(twin)), name=screen.name)
            for screen in SCREENS
            for twin in ((".json", "") if screen.path else ("",))
        ]
        actions = [
            Route(f"/q/{{queue}}/{name}{twin}", partial(self._act, action, bool(twin)), methods=["POST"])
            for name, action in ACTIONS.items()
            for twin in (".json", "")
        ]
        pages = [
            Route("/", self._home),
            Route("/healthz", _healthy),
            Route("/metrics", self._metrics),
            Route("/static/{name}", _static),
            Route("/login", self._login, methods=["POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/q/{queue}/live", self._stream),
            Route("/q/{queue}/tasks/{id:path}/live", self._stream),
            Route("/q/{queue}/overview.json", partial(self._screen, SCREENS[0], True)),
            *screens,
            *actions,
        ]
        self._asgi = Guard(Starlette(routes=pages), hosts, embed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._asgi(scope, receive, send)

    async def _screen(self, screen: Screen, is_json: bool, request: Request) -> Response:
        user = await self._user(request, is_json)
        if isinstance(user, Response):
            return user
        try:
            asked = self._asked(request, user, screen.permission)
            data = await screen.read(asked)
        except Exception as error:
            return self._failed(request, user, is_json, _refusal(error), "That cannot be shown")
        if is_json:
            return Response(json_text(data), media_type="application/json")
        ids = [asked.path["id"]] if "id" in asked.path else []
        query = f"?{request.url.query}" if request.url.query else ""
        here = asked.links(_pages.SCREENS[screen.under][0], *ids) + query
        return self._page_of(asked, screen.name, screen.under, here, data=data)

    async def _act(self, action: Action, is_json: bool, request: Request) -> Response:
        """An action: what is asked before, or what comes of it."""
        user = await self._user(request, is_json)
        if isinstance(user, Response):
            return user
        try:
            asked = self._asked(request, user, action.permission)
        except Refused as refused:
            if refused.status == 403:
                _posting.refused(action, request.path_params["queue"], user.name)
            return self._failed(request, user, is_json, refused, "That was not done")
        form, back = Filled(), asked.links(_pages.SCREENS[action.under][0])
        try:
            form = await _posting.form_of(request)
            back = _posting.way_back(form, asked.links(), back)
            if action.ask is not None and not is_json and not form.get(_posting.CONFIRMED):
                return self._question(asked, action, form, back, await action.ask(asked, form))
            told, answers = await _posting.carry_out(action, asked, form)
        except Exception as error:
            why = _refusal(error)
            if why.status == 400 and not is_json:
                return await self._wrong(asked, action, form, back, why)
            if why.status >= 500:
                why.text += ". It is not known whether this was done: look before you do it again."
            return self._failed(request, user, is_json, why, "That was not done")
        if is_json:
            return JSONResponse({"done": told.is_done, "told": told.text, "answers": answers})
        return self._told(request, asked.links("tasks", told.task_id) if told.task_id else back, told)

    def _question(
        self, asked: Asked, action: Action, form: Filled, back: str, question: Question, why: str = ""
    ) -> Response:
        """The page that asks before an action, with what is wrong of what was filled in."""
        others = {_posting.CONFIRMED, *question.more, *(each.name for each in question.inputs)}
        fields = [(name, value) for name, value in form.multi_items() if name not in others]
        fields += question.more.items()
        given = {"action": action, "question": question, "fields": fields, "why": why}
        return self._page_of(asked, "confirm", action.under, back, **given)

    async def _wrong(self, asked: Asked, action: Action, form: Filled, back: str, why: Refused) -> Response:
        """What was wrong, over the form to fill in if there is one."""
        if action.ask is not None and form.get(_posting.CONFIRMED):
            with suppress(Refused, ArdiqError):
                question = await action.ask(asked, form)
                if question.inputs:
                    return self._question(asked, action, form, back, question, why.text)
        return self._told(asked.request, back, Told(why.text, False))

    def _told(self, request: Request, back: str, told: Told) -> Response:
        answer = RedirectResponse(back, 303)
        _posting.tell(answer, told, _root(request), request.url.scheme == "https")
        return answer

    def _failed(self, request: Request, user: User, is_json: bool, refused: Refused, title: str) -> Response:
        if is_json:
            return JSONResponse({"error": refused.text}, refused.status)
        return _page(request, "refused", refused.status, user=user, title=title, told=refused.text)

    def _page_of(self, asked: Asked, template: str, under: str, here: str, **values: Any) -> Response:
        """A page of a queue, for somebody who may see it; `here`: where its forms lead back to."""
        notice = _posting.told_before(asked.request)
        answer = _pages.page(
            template,
            links=asked.links,
            user=asked.user,
            under=under,
            here=here,
            queues=asked.queues,
            params=dict(asked.params),
            counts=_counts(asked.samples),
            logs_out=isinstance(self._auth, Form),
            notice=notice,
            **values,
        )
        if notice is not None:
            _posting.forget(answer, _root(asked.request))
        return answer

    async def _home(self, request: Request) -> Response:
        user = await self._user(request, False)
        if isinstance(user, Response):
            return user
        names = [name for name in self._apps if user.sees(name) and user.can("view")]
        if len(names) == 1:
            return RedirectResponse(_links(request, names[0])(), 303)
        return _page(request, "home", user=user, names=names, logs_out=isinstance(self._auth, Form))

    async def _metrics(self, request: Request) -> Response:
        """What Prometheus reads, of all queues that the user sees, whether they have workers or not."""
        user = await self._user(request, True)
        if isinstance(user, Response):
            return user
        try:
            _require(user, "metrics")
        except Refused as refused:
            return JSONResponse({"error": refused.text}, refused.status)
        cores = [(name, app.context.server.core) for name, app in self._apps.items() if user.sees(name)]
        return PlainTextResponse(await asyncio.to_thread(Core.metrics, cores), media_type=_METRICS)

    async def _stream(self, request: Request) -> Response:
        user = await self._user(request, True)
        if isinstance(user, Response):
            return user
        try:
            asked = self._asked(request, user, "view")
        except Refused as refused:
            return JSONResponse({"error": refused.text}, refused.status)
        if self._streams >= MOST_STREAMS:
            return JSONResponse({"error": "too many pages listen; this one asks every ten seconds"}, 503)
        if "id" in asked.path:
            events = follow(asked.app, asked.path["id"], asked.sees_payloads)
        else:
            events = self.live(asked.app.queue_name, _links(request).root).events(request.is_disconnected)
        return StreamingResponse(self._counted(events), media_type="text/event-stream", headers=_UNBUFFERED)

    async def _counted(self, events: AsyncGenerator[str, None]) -> AsyncIterator[str]:
        self._streams += 1
        try:
            async with aclosing(events):
                async for event in events:
                    yield event
        finally:
            self._streams -= 1

    def live(self, queue: str, root: str = "") -> Live:
        """What is pushed to the pages of a queue, under where the dashboard is mounted."""
        key = (queue, root)
        self._live = {each: live for each, live in self._live.items() if live.listeners or each == key}
        if key not in self._live:
            self._live[key] = Live(queue, self._samples[queue], _pages.Links(root, queue))
        return self._live[key]

    async def _login(self, request: Request) -> Response:
        cookie = None
        if isinstance(self._auth, Form):
            with suppress(Refused):
                cookie = await self._auth.login(await _posting.form_of(request, _LARGEST_LOGIN))
        if cookie is None:
            return self._refuse(request, False, "That is not right.")
        answer = RedirectResponse(_links(request).home(), 303)
        _set_cookie(request, answer, cookie, SESSION_S)
        return answer

    async def _logout(self, request: Request) -> Response:
        answer = RedirectResponse(_links(request).home(), 303)
        _set_cookie(request, answer, "", 0)
        return answer

    async def _user(self, request: Request, is_json: bool) -> User | Response:
        answer = await who_asks(self._auth, request)
        return self._refuse(request, is_json) if answer is None else answer

    def _refuse(self, request: Request, is_json: bool, told: str = "") -> Response:
        if is_json:
            return JSONResponse({"error": "who are you?"}, 401)
        fields = self._auth.fields if isinstance(self._auth, Form) else ()
        return _page(request, "login", 401, fields=fields, told=told)

    def _asked(self, request: Request, user: User, permission: str) -> Asked:
        """The request, if they may."""
        name = request.path_params["queue"]
        if name not in self._apps or not user.sees(name):
            raise Refused(404, f"there is no queue {name!r} here")
        _require(user, permission)
        queues = [each for each in self._apps if user.sees(each)]
        links = _links(request, name)
        return Asked(request, self._apps[name], user, self._redactor, self._samples[name], queues, links)


def _require(user: User, permission: str) -> None:
    """Refuse somebody who may not."""
    if not user.can(permission):
        raise Refused(403, f"your role may not do that: it needs the permission {permission!r}")


def _refusal(error: Exception) -> Refused:
    """What is said of it: the server's troubles are told, a mistake of ours is raised."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BadArgument):
        return Refused(400, str(error))
    if isinstance(error, BrokerError):
        return Refused(503, f"the server does not answer: {error}")
    if isinstance(error, ArdiqError):
        return Refused(502, str(error))
    raise error


def _links(request: Request, queue: str = "") -> _pages.Links:
    return _pages.Links(quote(request.scope.get("root_path", "")), queue)


def _page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    return _pages.page(template, status, links=_links(request), **values)


def _root(request: Request) -> str:
    """The path that cookies are for."""
    return quote(request.scope.get("root_path", "")) or "/"


def _counts(samples: Samples) -> dict[str, int]:
    """What the navigation shows, as far as it is known without asking."""
    overview = samples.overview.last
    return {} if overview is None else {"dead": overview.counts.dead, "workers": overview.workers}


def _set_cookie(request: Request, answer: Response, value: str, age_s: int) -> None:
    answer.set_cookie(
        COOKIE,
        value,
        max_age=age_s,
        path=_root(request),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


async def _static(request: Request) -> Response:
    found = _pages.statics().get(request.path_params["name"])
    if found is None:
        return PlainTextResponse("there is no such file\n", 404)
    return Response(found[0], media_type=found[1], headers={"cache-control": _A_YEAR})


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("ok\n")
