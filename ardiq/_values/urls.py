"""URLs of servers, for people to read."""

import re


def unsecret(word: str) -> str:
    """A word as it may be shown: a URL without user, password and options, however they are written."""
    return re.sub(r"(://)(?:.*@)?([^?#]*).*", r"\1\2", word, flags=re.DOTALL)
