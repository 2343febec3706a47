"""Page and API below a path of a proxy: the real nginx and Apache, and a browser."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from monitor.errors import SettingError
from monitor.web.settings import ApiSettings
from monitor.web.sub_path import inner_path
from tests.docs.book import text_of
from tests.docs.fences import fences
from tests.ports import free_port
from tests.waiting import wait_for
from tests.web.whole import Whole, whole

if TYPE_CHECKING:
    from playwright.sync_api import Page

NGINX = """\
daemon off; pid PID; error_log stderr; events {}
http {
  access_log off;
  map $http_upgrade $connection_upgrade { default upgrade; '' close; }
  server {
    listen 127.0.0.1:PORT;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    location /other/ { proxy_pass http://127.0.0.1:API/; }
    GUIDE
  }
}
"""
MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http", "proxy_wstunnel", "headers")
APACHE = """\
ServerRoot DIRECTORY
ServerName localhost
PidFile PID
Listen 127.0.0.1:PORT
ErrorLog DIRECTORY/error.log
LOADS
GUIDE
ProxyPass "/other/" "http://127.0.0.1:API/" upgrade=websocket
"""


@pytest.mark.parametrize(
    ("path", "inner"),
    [("/monitor/job", "/job"), ("/job", "/job"), ("/monitor", "/monitor"), ("/monitors/", None)],
)
def test_a_path_loses_the_sub_path_once(path: str, inner: str | None) -> None:
    assert inner_path("/monitor", path) == (inner or path)
    assert inner_path("", path) == path


@pytest.mark.parametrize("wrong", ["monitor", "/monitor/", "/", "/a b", "/a?b", "//a", "/ä"])
def test_a_root_path_is_a_path(wrong: str) -> None:
    with pytest.raises(SettingError, match="expected a path such as /monitor"):
        ApiSettings(root_path=wrong).verify()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Whole]:
    port = free_port()
    api = {
        "uri": ["127.0.0.1", port],
        "root_path": "/monitor",
        "tokens_file": None,
        "website_mock": True,
    }
    with whole(api=api) as running:
        assert running.request("POST", "/job", json={"id": 1, **running.mock()}).status_code == 201
        running.wait_for_state(1, "up")
        yield running


@pytest.fixture(scope="module", params=["nginx", "apache2"])
def proxied(
    request: pytest.FixtureRequest,
    daemon: Whole,
    program: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """Run the proxy and return its URL."""
    name: str = request.param
    found = program(name, package="nginx-light" if name == "nginx" else "apache2")
    directory, port = tmp_path_factory.mktemp(name), free_port()
    loads = "\n".join(
        f"LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so" for module in MODULES
    )
    text = (NGINX if name == "nginx" else APACHE).replace("LOADS", loads)
    text = text.replace("GUIDE", guide("nginx" if name == "nginx" else "apache"))
    for word, value in (("PID", directory / "pid"), ("PORT", port), ("API", daemon.port)):
        text = text.replace(word, str(value))
    file = directory / "conf"
    file.write_text(text.replace("DIRECTORY", str(directory)))
    options = ["-c", str(file)] if name == "nginx" else ["-f", str(file), "-D", "FOREGROUND"]
    process = subprocess.Popen([found, *options])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{url}/monitor/healthz"), f"{name} to answer")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def guide(language: str) -> str:
    """Return what the proxy's page adds to a site, for another port of the API."""
    page = f"docs/deploy/{language}.md"
    section = text_of(page).partition("## Below a path of another site\n")[2]
    (added,) = (each.text for each in fences(page, section) if each.language == language)
    return added.replace("127.0.0.1:9000", "127.0.0.1:API")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=30):
            return True
    except (OSError, urllib.error.URLError):
        time.sleep(0.1)
        return False


@pytest.mark.end_to_end
@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", ["/monitor", "/monitor/", "/other/"])
def test_the_page_works_below_the_path(proxied: str, page: Page, path: str) -> None:
    failed: list[str] = []
    page.on("response", lambda answer: failed.append(answer.url) if answer.status >= 404 else None)
    page.goto(proxied + path)
    page.get_by_role("link", name="Sites").click()
    page.wait_for_selector(".sites >> text=website_mock")
    page.goto(proxied + path.rstrip("/") + "/docs")
    page.wait_for_selector("text=/openapi.json")
    assert failed == []
