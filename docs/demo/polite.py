"""Tasks with limits: a polite crawler, orders for a partner that answers 429, and work that tenants share.

`make demo-limits` runs them and watches: limits.py.
"""

import asyncio
import os
from http.client import HTTPConnection
from urllib.parse import urlsplit

from ardiq import Ardiq, Rate, RateLimited, Unique

app = Ardiq("embedded://", queue_name="limits", concurrency=16)

partner = app.limit("partner", concurrency=4, rate=Rate(15, per=1, burst=5))
database = app.limit("database", concurrency=8)
host = app.limit("host", key=lambda url: urlsplit(url).netloc, concurrency=2, rate=Rate(5, per=1))
tenant = app.limit("tenant", key="tenant", concurrency=8)


@app.task(unique=Unique(until=3600), limits=host)
def crawl(url: str) -> None:
    """Fetch a page, and enqueue those that it links to, each once an hour."""
    _, page = request("GET", url)
    app.enqueue_many_sync(crawl.prepare(link) for link in page.split())


@app.task(limits=partner)
def order(number: int) -> None:
    """Tell the partner of an order. A 429 is for all: nobody calls the partner until it wants to be called again."""
    retry_after, _ = request("POST", f"http://partner.example/orders/{number}")
    if retry_after:
        raise RateLimited(retry_after, limit=partner)


@app.task(limits=[database, tenant])
async def bill(tenant: str, number: int) -> None:
    """Some work on the database, which all tenants share."""
    await asyncio.sleep(0.002)


def request(method: str, url: str) -> tuple[int, str]:
    """For how many seconds the host wants no more calls, and its page. Here one server plays all hosts."""
    connection = HTTPConnection(os.environ["DEMO_SITES"], timeout=30)
    try:
        connection.request(method, url)
        answer = connection.getresponse()
        text = answer.read().decode()
        return int(answer.headers["Retry-After"]) if answer.status == 429 else 0, text
    finally:
        connection.close()
