"""One request for a screen, and what its view may use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from .._server.replies import Call, R
from ._redact import Redactor
from ._samples import Samples
from ._users import User

if TYPE_CHECKING:
    from ..app import Ardiq
    from ._pages import Links

_LONGEST_CURSOR = 100


class Refused(Exception):
    """A request that gets this status and text instead of the page."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Asked:
    """A request for a screen of a queue, by somebody who may see it.

    Attributes:
        app: the queue.
        user: the one who asked.
        redactor: hides secrets.
        samples: what all pages of the queue share.
        queues: the names of all queues that the user sees.
        links: the addresses of pages of this queue.
    """

    request: Request
    app: "Ardiq"
    user: User
    redactor: Redactor
    samples: Samples
    queues: list[str]
    links: "Links"

    async def ask(self, call: Call[R]) -> R:
        """The answer of one function of the library."""
        return await self.app.context.channel().ask(call)

    @property
    def params(self) -> Mapping[str, str]:
        return self.request.query_params

    @property
    def path(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.request.path_params
        return found

    def number(self, name: str, default: int = 0, most: int = 10**12) -> int:
        """A number of the address.

        Raises:
            Refused: it is not one.
        """
        text = self.params.get(name, "")
        if not text:
            return default
        if not (text.isascii() and text.isdecimal()) or len(text) > len(str(most)) or int(text) > most:
            raise Refused(400, f"{name} must be a number from 0 to {most:,}")
        return int(text)

    def cursor(self) -> str:
        """Where to go on: what the page before it named."""
        return self.params.get("from", "")[:_LONGEST_CURSOR] or "0"

    @property
    def sees_payloads(self) -> bool:
        """Whether they may see arguments, results, notes and logs."""
        return self.user.can("payloads")
