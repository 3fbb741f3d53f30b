"""One local server that plays the hosts which polite.py crawls, and its partner."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil
from typing import Any, ClassVar

HOSTS = ("news.example", "shop.example", "wiki.example")
PAGES = 1000


class Partner:
    """When the partner has enough, and how often it had to say so."""

    closed_until = 0.0
    served = 0
    refused: ClassVar[list[int]] = []  # in each of its bad times

    @classmethod
    def close(cls, seconds: float) -> None:
        cls.refused.append(0)
        cls.closed_until = time.monotonic() + seconds

    @classmethod
    def retry_after(cls) -> int:
        left = cls.closed_until - time.monotonic()
        if left <= 0:
            cls.served += 1
            return 0
        cls.refused[-1] += 1
        return ceil(left)


class Sites(BaseHTTPRequestHandler):
    """Answers for all of them, as an HTTP proxy would."""

    def do_GET(self) -> None:
        site, _, page = self.path.rpartition("/")
        time.sleep(0.2)
        links = [3 * int(page) + each for each in (1, 2, 3)] + [int(page) // 2]
        self.answer(200, " ".join(f"{site}/{link % PAGES}" for link in links))

    def do_POST(self) -> None:
        time.sleep(0.1)
        retry_after = Partner.retry_after()
        self.answer(429 if retry_after else 200, "", retry_after)

    def answer(self, status: int, text: str, retry_after: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if retry_after:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """The demonstration says what happens."""


@contextmanager
def sites() -> Iterator[str]:
    """The hosts and the partner, for the length of the block: where they listen."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Sites) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
