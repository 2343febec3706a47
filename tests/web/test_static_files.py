"""The page's files are kept for good under the name of their content; answers are compressed."""

from __future__ import annotations

import gzip
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fastapi import APIRouter, Request, Response

import monitor.web
from monitor.web.http.answers import json_answer
from monitor.web.http.compression import accepts_gzip
from monitor.web.http.static_files import lean, version, with_version
from monitor.web.routes.pages import wants_json
from tests.web.serving import Serving, serving

pytestmark = pytest.mark.integration_test

STATIC = Path(monitor.web.__file__).parent / "static"


class Items(msgspec.Struct):
    items: list[str]


def router() -> APIRouter:
    routes = APIRouter()

    @routes.get("/long")
    async def long(request: Request) -> Response:
        return json_answer(request, Items([f"item {number}" for number in range(1000)]))

    @routes.get("/short")
    async def short(request: Request) -> Response:
        return json_answer(request, Items(["one"]))

    return routes


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving() as running:
        yield running


def get(server: Serving, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request(
        "GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()}
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_a_browser_keeps_a_file_for_good_under_the_name_of_its_content(server: Serving) -> None:
    _, page = get(server, "/", accept="text/html")
    links = re.findall(r'(?:href|src)="(static/[^"]+)"', page.decode())
    assert len(links) > 5
    for link in links:
        assert link.startswith(f"static/{version()}/")
        answer, body = get(server, f"/{link}")
        assert answer.status == 200
        assert body
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        same, squeezed = get(server, f"/{link}", accept_encoding="gzip")
        if same.headers["content-encoding"] == "gzip":
            squeezed = gzip.decompress(squeezed)
        assert squeezed == body
        assert same.headers["content-type"] == answer.headers["content-type"]
        assert get(server, f"/{link}", if_none_match=answer.headers["etag"])[0].status == 304
    # The modules of a module are named by it, relative to its own name.
    module = get(server, f"/static/{version()}/app.js")[1].decode()
    assert all(path.startswith("./") for path in re.findall(r"from '([^']+)'", module))


def test_the_page_itself_and_plain_names_are_revalidated(server: Serving) -> None:
    for path in ("/", "/static/app.js"):
        answer, _ = get(server, path, accept="text/html")
        assert "no-cache" in answer.headers["cache-control"]
        again, _ = get(server, path, accept="text/html", if_none_match=answer.headers["etag"])
        assert again.status == 304
    # The headers of a 304 replace those that the browser has kept.
    page, _ = get(server, "/", accept="text/html")
    again, _ = get(server, "/", accept="text/html", if_none_match=page.headers["etag"])
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert again.headers["content-security-policy"] == policy
    script, _ = get(server, f"/static/{version()}/app.js")
    assert script.headers["content-security-policy"].startswith("default-src 'none'; frame")


def test_files_of_another_version_are_not_there_and_not_kept(server: Serving) -> None:
    answer, body = get(server, "/static/v-000000000000/app.js")
    assert answer.status == 404
    assert answer.headers["cache-control"] == "no-store"
    assert "another version" in json.loads(body)["detail"]
    for path in (f"/static/{version()}/../app.py", f"/static/{version()}/%2e%2e/%2e%2e/part.py"):
        assert get(server, path)[0].status == 404


def imports(path: Path) -> set[Path]:
    """Return a module and all that it imports, not those that it loads later."""
    found, left = set(), [path.resolve()]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            names = re.findall(r"^import [^;]*from '(\.[^']+)'", module.read_text(), re.MULTILINE)
            left += [(module.parent / name).resolve() for name in names]
    return found


def test_the_page_asks_at_once_for_each_module_that_it_begins_with() -> None:
    html = (STATIC / "index.html").read_text()
    asked = re.findall(r'<(?:link rel="modulepreload" href|script [^>]*src)="static/([^"]+)"', html)
    assert {(STATIC / each).resolve() for each in asked} == imports(STATIC / "app.js")


VIEWS = re.findall(
    r"import\('\./views/(\w+)\.js'\)((?:, '\w+')*)\]", (STATIC / "views.js").read_text()
)


def files_of(view: str, sheets: str) -> set[Path]:
    """Return all that a first visit of a view loads, but for its data."""
    html = (STATIC / "index.html").read_text()
    styles = [*re.findall(r'stylesheet" href="static/([^"]+)\.css"', html), *sheets_of(sheets)]
    modules = imports(STATIC / "app.js") | imports(STATIC / "views" / f"{view}.js")
    return {*modules, STATIC / "index.html", *(STATIC / f"{each}.css" for each in styles)}


def sheets_of(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def test_every_view_can_be_loaded() -> None:
    assert {view for view, _ in VIEWS} == {each.stem for each in (STATIC / "views").iterdir()}


@pytest.mark.parametrize(("view", "sheets"), VIEWS)
def test_a_first_visit_is_small(view: str, sheets: str) -> None:
    sent = [lean(each.read_text()).encode() for each in files_of(view, sheets)]
    assert sum(len(gzip.compress(each)) for each in sent) < 50_000


@pytest.mark.parametrize(("view", "sheets"), VIEWS)
def test_a_view_names_the_style_sheets_of_its_classes(view: str, sheets: str) -> None:
    def classes(sheet: Path) -> set[str]:
        return set(re.findall(r"\.([a-z][\w-]*)", re.sub(r"\{[^{}]*\}", "", sheet.read_text())))

    names = {each for _, sheets in VIEWS for each in sheets_of(sheets)}
    given = classes(STATIC / "page.css").union(
        *(classes(STATIC / f"{each}.css") for each in sheets_of(sheets))
    )
    others = set[str]().union(*(classes(STATIC / f"{each}.css") for each in names)) - given
    used = {
        word
        for each in files_of(view, sheets)
        for text in re.findall(r"\bclass(?:Name)?[:\s=]+['`]([^'`]*)", each.read_text())
        for word in text.split()
    }
    assert used & others == set()


@pytest.mark.parametrize("path", sorted(STATIC.rglob("*.[jc]s*")), ids=lambda path: path.name)
def test_what_is_sent_is_the_code_without_comments(path: Path) -> None:
    text = path.read_text()
    # A text of several lines would lose its indentation, and what looks like a comment.
    assert [line for line in text.splitlines() if line.count("`") % 2] == []
    sent = lean(text)
    for line, original in zip(sent.splitlines(), text.splitlines(), strict=True):
        assert line in ("", original.strip(" "))
    assert "\n//" not in sent
    assert "/**" not in sent


def test_only_links_to_files_are_renamed() -> None:
    html = '<a href="docs">static/x</a><link href="static/a.css"><script src="static/b.js">'
    assert with_version(html) == (
        f'<a href="docs">static/x</a><link href="static/{version()}/a.css">'
        f'<script src="static/{version()}/b.js">'
    )


def test_long_answers_are_compressed_if_the_client_asks() -> None:
    with serving(routers=[router()]) as server:
        plain, body = get(server, "/long")
        assert "content-encoding" not in plain.headers
        assert plain.headers["vary"] == "accept-encoding"
        answer, squeezed = get(server, "/long", accept_encoding="br, gzip;q=0.5")
        assert answer.headers["content-encoding"] == "gzip"
        assert int(answer.headers["content-length"]) == len(squeezed) < len(body) / 2
        assert gzip.decompress(squeezed) == body
        # A validator of one is good for the other, but does not promise the same bytes.
        assert answer.headers["etag"] == f"W/{plain.headers['etag']}"
        for given in (answer.headers["etag"], plain.headers["etag"]):
            again, nothing = get(server, "/long", accept_encoding="gzip", if_none_match=given)
            assert (again.status, nothing) == (304, b"")
        short, _ = get(server, "/short", accept_encoding="gzip")
        assert "content-encoding" not in short.headers


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("gzip", True),
        ("GZip , br", True),
        ("br;q=1, gzip; q=0.1", True),
        ("gzip;q=0", False),
        ("gzip; q=0.00", False),
        ("br", False),
        ("", False),
        ("xgzip", False),
    ],
)
def test_gzip_is_accepted_unless_its_weight_is_0(accepted: str, *, expected: bool) -> None:
    assert accepts_gzip(accepted) is expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json", True),
        ("application/json, text/plain, */*", True),
        ("Application/JSON; q=0.9, text/html;q=0.1", True),
        ("text/html, application/json", False),
        ("application/json;q=0, */*", False),
        ("application/json;q=x", True),
        ("application/problem+json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_json_is_for_who_prefers_it(accept: str, *, expected: bool) -> None:
    assert wants_json(accept) is expected
