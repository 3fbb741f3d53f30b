"""Servers that may evict keys, and users who are confined to the keys of a queue."""

import asyncio
import inspect
import os
import socket
from urllib.parse import urlsplit

from observed import drain, see_later

from ardiq import Ardiq

URL = os.environ["ARDIQ_REDIS_URL"]


def command(*words):
    """One command by hand: 1.2 has no client for it."""
    address = urlsplit(URL)
    if "unix" in address.scheme:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.path)
    else:
        connection = socket.create_connection((address.hostname, address.port))
    with connection:
        packed = [word.encode() for word in words]
        connection.sendall(b"*%d\r\n" % len(packed) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in packed))
        answer = connection.recv(1000)
    assert answer.startswith(b"+OK"), answer


def as_user(name, *keys):
    command("ACL", "SETUSER", name, "reset", "on", ">secret", "+@all", "-acl", "&*", *(f"~{key}" for key in keys))
    if "unix" in urlsplit(URL).scheme:
        return f"{URL}{'&' if '?' in URL else '?'}user={name}&pass=secret"
    return URL.replace("://", f"://{name}:secret@")


async def used(url, queue, **options):
    app = Ardiq(url, queue, **options)
    task = app.task(name="f")(lambda x: x)
    job = await task.enqueue(1)
    await drain(app)
    result = await job.result()
    return [result.success, result.value]


async def main():
    command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await see_later("may evict", lambda: used(URL, "evicting"))
    command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await see_later("confined to the keys of 1.2", lambda: used(as_user("old", "ardiq:confined:*"), "confined"))
    prefix = {"prefix": "ardiq:confined"} if "prefix" in inspect.signature(Ardiq).parameters else {}
    await see_later(
        "the same, as the guide says", lambda: used(as_user("old", "ardiq:confined:*"), "confined", **prefix)
    )
    both = as_user("both", "ardiq:confined-2:*", "ardiq:{confined-2}:*")
    await see_later("confined to the keys of its queue", lambda: used(both, "confined-2"))


asyncio.run(main())
