"""A dashboard for the browser: `dashboard(app, auth=…)` is an ASGI app to mount, or to serve by `ardiq web`.

It needs `pip install 'ardiq[web]'`. It only reads, keeps nothing of tasks in its memory, and asks the server at most
twice a page.
"""

from ._app import Dashboard, dashboard
from ._auth import Auth, Token, TrustedHeader, Users
from ._users import User

__all__ = ["Auth", "Dashboard", "Token", "TrustedHeader", "User", "Users", "dashboard"]
