"""Reads a file of Apprise URLs, which are secrets, and the URLs of receivers of HTTP."""

from __future__ import annotations

from monitor.errors import SettingError
from monitor.libraries import needed_by
from monitor.settings import read_secret

__all__ = ["read_urls", "web_url"]

_MOST = 100


def read_urls(file: str, *, path: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return the URLs in ``file``, one a line; ``#`` begins a comment, even after a URL.

    Raises SettingError at ``path`` with the number of the line, never with its text.
    """
    found = []
    for number, line in enumerate(read_secret(file, path=path).splitlines(), 1):
        # A # within a URL belongs to it, as in a Slack channel.
        text = line.strip()
        if text.startswith("#") or not text:
            continue
        text = text.split(" #")[0].strip()
        if "://" not in text or not text.isprintable() or any(map(str.isspace, text)):
            raise SettingError(path, f"{file}:{number}: not a URL such as mailto://...")
        found.append(text)
    if not found:
        raise SettingError(path, f"{file} has no URL")
    if len(found) > _MOST:
        raise SettingError(path, f"{file} has more than {_MOST} URLs")
    return tuple(dict.fromkeys(found))


def web_url(text: str, base: str | None = None) -> str:
    """Return a URL of HTTP as it is sent, in ASCII; raise ValueError for another.

    It is read as browsers read it; with ``base``, as a redirect from there.
    """
    with needed_by("alerts"):
        from pywhatwgurl import URL

    url = URL(text, base)
    if url.protocol not in ("http:", "https:"):
        raise ValueError(f"{url.protocol} is not HTTP")
    return str(url.href)
