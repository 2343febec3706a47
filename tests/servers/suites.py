"""What the test suites of others have as inputs: fetched once, and kept between runs."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import missing
from tests.servers.kept import kept

__all__ = ["curl_replies", "url_cases"]

Find = Callable[..., str]

_CRATE = "2.5.8"
_RELEASE = "trixie"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_ARCHIVE = re.compile(r"^(\S*/debian/?)$", re.M)
_REPLY = re.compile(rb"<(data\d*)((?: [^>]*)?)>\n(.*?)</\1>", re.S)


def url_cases(find: Find) -> list[dict[str, Any]]:
    """Return the cases of the WHATWG's urltestdata.json, which the crate ``url`` contains."""

    def fetch(folder: Path) -> None:
        cargo = find("cargo", package="cargo")
        (folder / "src").mkdir()
        (folder / "src/lib.rs").touch()
        (folder / "Cargo.toml").write_text(
            f'[package]\nname = "fetched"\nversion = "0.0.0"\n[dependencies]\nurl = "={_CRATE}"\n'
        )
        _call(folder, cargo, "vendor", "--quiet", "vendor")
        shutil.move(folder / "vendor/url/tests/urltestdata.json", folder)
        shutil.rmtree(folder / "vendor")

    text = (kept(f"url-cases-{_CRATE}", fetch) / "urltestdata.json").read_text("utf-8")
    return [case for case in json.loads(text) if isinstance(case, dict)]


def curl_replies(find: Find) -> dict[str, bytes]:
    """Return the HTTP replies of curl's own tests by test and part, from Debian's source.

    One that several tests have is there once, by its first test.
    """

    def fetch(folder: Path) -> None:
        apt = find("apt-get", package="apt")
        urls = _call(folder, apt, "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
        archive = _ARCHIVE.search(urls)
        if archive is None:
            missing("apt here knows no archive of Debian")
            raise AssertionError
        source = f"deb-src [signed-by={_KEYRING}] {archive[1]} {_RELEASE} main\n"
        (folder / "sources.list").write_text(source)
        (folder / "lists/partial").mkdir(parents=True)
        apart = [f"Dir::State::lists={folder}/lists", f"Dir::Cache={folder}/cache"]
        apart += [f"Dir::Etc::sourcelist={folder}/sources.list", "Dir::Etc::sourceparts=/dev/null"]
        options = [word for each in [*apart, "APT::Sandbox::User=root"] for word in ("-o", each)]
        _call(folder, apt, *options, "update")
        _call(folder, apt, *options, "source", "--download-only", "--tar-only", "curl")
        (archived,) = folder.glob("curl_*.orig.tar.?z")
        wanted = ("--wildcards", "--strip-components=3", "*/tests/data/test[0-9]*")
        _call(folder, "tar", "--extract", f"--file={archived}", *wanted)
        for each in folder.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
            elif not each.name.startswith("test"):
                each.unlink()

    replies: dict[bytes, str] = {}
    for file in sorted(kept(f"curl-tests-{_RELEASE}", fetch).glob("test*")):
        for part, attributes, text in _REPLY.findall(file.read_bytes()):
            reply = _reply(attributes, text)
            if reply.startswith(b"HTTP/"):
                replies.setdefault(reply, f"{file.name}-{part.decode()}")
    return {name: reply for reply, name in replies.items()}


def _reply(attributes: bytes, text: bytes) -> bytes:
    """Return what curl's test server sends. Source: docs/tests/FILEFORMAT.md of curl."""
    if b'base64="yes"' in attributes:
        text = base64.b64decode(text)
    text = re.sub(rb"%hex\[(.*?)\]hex%", lambda found: _bytes(found[1]), text, flags=re.S)
    text = re.sub(rb"%b64\[(.*?)\]b64%", lambda found: base64.b64encode(found[1]), text, flags=re.S)
    text = re.sub(
        rb"%repeat\[(\d+) x (.*?)\]%", lambda found: found[2] * int(found[1]), text, flags=re.S
    )
    text = text.replace(b"%CR", b"\r").replace(b"%LF", b"\n").replace(b"%spc%", b" ")
    if b'nonewline="yes"' in attributes:
        text = text[:-1]
    if b'crlf="headers"' in attributes:
        head, end, body = text.partition(b"\n\n")
        return _with_cr(head + end) + body
    return _with_cr(text) if b'crlf="yes"' in attributes else text


def _bytes(text: bytes) -> bytes:
    return re.sub(rb"%([0-9a-fA-F]{2})", lambda found: bytes([int(found[1], 16)]), text)


def _with_cr(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )
    if done.returncode != 0:
        missing(f"{command[0]} could not fetch it: {(done.stdout + done.stderr).strip()[-300:]}")
    return done.stdout
