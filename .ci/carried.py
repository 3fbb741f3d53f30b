"""Checks that the installed package carries every released version of the library; called with lua/releases."""

import sys
from pathlib import Path

from ardiq import _core
from ardiq.embedded import Server

sums = Path(sys.argv[1], "SHA1SUMS")
released = dict(reversed(line.split()) for line in sums.read_text().splitlines()) if sums.exists() else {}
with Server() as server:
    core = _core.Core(server.url, "ardiq:{carried}:")
    for version in range(1, _core.PROTOCOL_VERSION):
        core.migrate_apply(to=version, force=False)
        found = {library["version"]: library["sha1"] for library in core.migrate_status()["installed"]}
        assert found[version] == released[f"ardiq_v{version}.lua"], f"version {version} is not what was released"
    core.close()
