"""A worker imports what it runs, and whoever wants more gets it."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from projects import Project

import ardiq

# OpenSSL, compressors, whatever configures logging by a file or finds modules by a pattern, other commands.
HEAVY = [
    "_ssl",
    "_hashlib",
    "_bz2",
    "_lzma",
    "concurrent.futures.thread",
    "email",
    "http",
    "importlib.metadata",
    "logging.config",
    "multiprocessing",
    "opentelemetry",
    "pathlib",
    "pkgutil",
    "random",
    "rich",
    "sentry_sdk",
    "shutil",
    "ssl",
    "tempfile",
    "tomllib",
    "urllib",
    "ardiq.embedded",
    "ardiq.cli.dlq",
    "ardiq.cli.doctor",
    "ardiq.cli.status",
    "ardiq.cli._output",
]


def test_an_idle_worker_has_imported_nothing_it_does_not_run(project: Project) -> None:
    project.write(
        "lean.py",
        f"""
        import sys
        from ardiq import Ardiq
        app = Ardiq({project.url!r})

        @app.task
        async def none() -> None: ...

        @app.lifespan
        async def lifespan():
            yield
            print(sorted(set({HEAVY}) & set(sys.modules)))
        """,
    )
    project.enqueue("none", "[]")
    for command in (("-m", "ardiq"), ("-c", "from ardiq.__main__ import program; program()")):
        done = project.python(*command, "run", "lean:app", "--burst", "-q")
        assert (done.stdout.strip(), done.stderr) == ("[]", "")
    assert project.of_all("state") == ["complete"]


def test_ardiq_imports_nothing_before_a_name_is_asked_for() -> None:
    code = "import sys; before = set(sys.modules); import ardiq, ardiq.__main__; print(set(sys.modules) - before)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(seen) == {"ardiq", "ardiq.__main__"}


def test_every_public_name_is_what_type_checkers_see() -> None:
    """What `__init__` imports for types alone is what it gives."""
    tree = ast.parse(Path(ardiq.__file__).read_text())
    shown = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    named = {each.name: node.module for node in shown for each in node.names}
    assert sorted(named) == sorted(ardiq.__all__)
    for name, home in named.items():
        assert getattr(ardiq, name) is getattr(importlib.import_module(f"ardiq.{home}"), name)
    assert set(ardiq.__all__) <= set(dir(ardiq))
    assert ardiq.errors.Retry is ardiq.Retry
    with pytest.raises(AttributeError, match="module 'ardiq' has no attribute 'Tusk'"):
        _ = ardiq.Tusk  # type: ignore[attr-defined]


def test_ctrl_c_while_ardiq_is_imported_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "asyncio").mkdir()
    (tmp_path / "asyncio" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    for command in (("-m", "ardiq"), ("-c", "from ardiq.__main__ import program; program()")):
        words = [sys.executable, *command, "run", "shop:app"]
        ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


TLS = """
import ardiq.__main__ as late, sys
late.import_asyncio()
import asyncio
assert "_ssl" not in sys.modules and "ssl" not in sys.modules and "asyncio.sslproto" not in sys.modules
context = {context}

async def main():
    async def greet(reader, writer):
        writer.write(b"hello")
        writer.close()

    import ssl
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(sys.argv[1])
    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=own)
    port = server.sockets[0].getsockname()[1]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context(), server_hostname="localhost")
        print(await reader.read())
        assert isinstance(writer.transport, asyncio.sslproto._SSLProtocolTransport)
        writer.close()
    except asyncio.base_events.ssl.SSLCertVerificationError as error:
        assert type(error) is ssl.SSLCertVerificationError
        print("refused")

asyncio.run(main())
"""


def test_tls_by_asyncio_is_there_when_it_is_wanted(tmp_path: Any) -> None:
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine = f'lambda: __import__("ssl").create_default_context(cafile={str(tmp_path / "ca.pem")!r})'
    for context, said in ((mine, "b'hello'"), ("lambda: True", "refused")):
        code = TLS.format(context=context)
        words = [sys.executable, "-c", code, str(tmp_path / "own.pem")]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert (done.stdout.strip(), done.returncode) == (said, 0), done.stderr


def test_who_has_asyncio_or_ssl_already_keeps_it() -> None:
    for first in ("asyncio", "ssl"):
        code = (
            f"import {first}, sys; first = sys.modules['ssl']; import ardiq.__main__ as late; "
            "late.import_asyncio(); import ssl, asyncio; assert ssl is first; assert asyncio.base_events.ssl is ssl"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
