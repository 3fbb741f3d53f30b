"""Pages from templates."""

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from .._values.ids import new_id
from ..cli._output import age, many, short
from . import _actions, _drawing

HERE = Path(__file__).parent
SCREENS = {
    "overview": ("", "Overview", "o"),
    "tasks": ("tasks", "Tasks", "t"),
    "dead": ("dead", "Dead letters", "d"),
    "workflows": ("workflows", "Workflows", "f"),
    "schedules": ("schedules", "Schedules", "s"),
    "workers": ("workers", "Workers", "w"),
    "limits": ("limits", "Limits", "l"),
    "pauses": ("pauses", "Pauses", "p"),
    "audit": ("audit", "Audit", "a"),
}
_GLYPHS = {
    "complete": "✓",
    "failed": "✕",
    "running": "▶",
    "queued": "…",
    "limited": "≡",
    "scheduled": "◷",
    "held": "‖",
    "blocked": "◌",
    "away": "→",
    "aborted": "■",
    "expired": "⌛",
    "discarded": "⌫",
    "skipped": "↷",
}
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_HASH_LENGTH = 12


class Links:
    """The addresses of pages under where the dashboard is mounted."""

    def __init__(self, root: str, queue: str = "") -> None:
        self.root, self.queue = root, queue

    def __call__(self, screen: str = "", *ids: str, **params: Any) -> str:
        """A page of the queue; what is None or empty is left out of the parameters."""
        parts = [quote(part, safe="") for part in (screen, *ids) if part]
        given = {name.rstrip("_"): value for name, value in params.items() if value not in (None, "")}
        words = f"?{urlencode(given)}" if given else ""
        return f"{self.root}/q/{quote(self.queue, safe='')}/{'/'.join(parts)}{words}"

    def static(self, name: str) -> str:
        """A file that browsers may keep: its address changes with its content."""
        return f"{self.root}/static/{hashed(name)}"

    def home(self) -> str:
        return f"{self.root}/"


@cache
def statics() -> dict[str, tuple[bytes, str]]:
    """The files by the names that they are served under, which have their hashes; with their types."""
    found = {}
    for path in sorted((HERE / "static").iterdir()):
        if path.suffix in _TYPES:
            data = path.read_bytes()
            name = f"{path.stem}.{hashlib.sha256(data).hexdigest()[:_HASH_LENGTH]}{path.suffix}"
            found[name] = (data, _TYPES[path.suffix])
    return found


@cache
def hashed(name: str) -> str:
    """The name that a file is served under."""
    stem, _, suffix = name.rpartition(".")
    return next(each for each in statics() if each.startswith(f"{stem}.") and each.endswith(f".{suffix}"))


def page(template: str, status: int = 200, **values: Any) -> Response:
    """A page. All that is put into it is escaped."""
    return HTMLResponse(text(template, **values), status)


def text(template: str, **values: Any) -> str:
    """A template, filled in."""
    return _environment().get_template(f"{template}.html").render(screens=SCREENS, glyphs=_GLYPHS, **values)


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"age": age, "moment": moment, "clock": clock, "short": short, "plain": plain, "count": count}
    made.globals |= {"many": many, "drawing": _drawing, "chip": chip}
    made.globals["new_id"] = new_id
    made.globals |= {"offered": _actions.offered, "allowed": _actions.allowed}
    return made


def chip(state: str) -> Markup:
    """A state with a glyph and a word besides its color."""
    return Markup('<span class="chip {0}">{1} {0}</span>').format(state, _GLYPHS.get(state, "·"))


def moment(milliseconds: int | None) -> str:
    """A time in ms since the epoch; empty if there is none."""
    return _time(milliseconds, "%Y-%m-%d %H:%M:%S")


def clock(milliseconds: int | None) -> str:
    """Its time of day."""
    return _time(milliseconds, "%H:%M:%S")


def _time(milliseconds: int | None, form: str) -> str:
    if not milliseconds:
        return ""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):  # beyond what a calendar has
        return str(milliseconds)


def count(number: int | None) -> str:
    """A number with commas; empty if there is none."""
    return "" if number is None else f"{number:,}"


def plain(value: Any, most: int = 16_384) -> str:
    """A value as JSON in one line, cut after so many characters; a text as it is."""
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return told if len(told) <= most else f"{told[:most]}… {len(told) - most:,} characters more"
