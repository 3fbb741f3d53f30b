"""A dashboard for the browser: `dashboard(app, auth=…)` is an ASGI app to mount, or to serve by `ardiq web`.

It needs `pip install 'ardiq[web]'`. It keeps nothing of tasks in its memory, asks the server at most twice a page, and
logs to `ardiq.audit` who did what.
"""

from ._app import Dashboard, dashboard
from ._auth import Auth, Token, TrustedHeader, Users
from ._users import User

__all__ = ["Auth", "Dashboard", "Token", "TrustedHeader", "User", "Users", "dashboard"]
