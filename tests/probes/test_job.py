"""A job is checked whole before it runs, and says what is wrong by its key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import SettingError
from monitor.probes.checks import read_job
from monitor.probes.checks.http.job import HttpJob, expected_codes
from monitor.probes.checks.http.request import Request
from monitor.probes.job import Job
from monitor.probes.jobs_file import read_jobs
from monitor.probes.schedule import Run
from monitor.probes.settings import ProbesSettings
from monitor.probes.slots import Slots
from tests.examples import examples
from tests.files.broken import broken


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "htp"}, "kind: unknown kind 'htp'; did you mean http?"),
        ({"kind": "../http"}, "kind: unknown kind"),
        ({"url": "ftp://x/"}, "url: 'ftp://x/' must start with http:// or https://"),
        ({"url": "http:///"}, "url: 'http:///' has no host"),
        ({"url": "http://x y/"}, "is not a URL"),
        ({"url": "http://x\r\nHost: evil/"}, "is not a URL"),
        ({"url": "http://x:99999/"}, "is not a URL"),
        ({"url": "http://u:secret@x:99999/"}, "is not a URL"),
        ({"url": "http://[::1/"}, "url: "),
        ({"url": "http://" + "a" * 70 + ".org/"}, "has an invalid host name"),
        ({"method": "GET /"}, "method: "),
        ({"method": ""}, "method: "),
        ({"body_regexp": "("}, "body_regexp: not a regular expression"),
        ({"body_regexp": "(?P<a>x)(?P<a>y)"}, "body_regexp: not a regular expression"),
        ({"body_regexp": "a\udcff"}, "body_regexp: is not valid Unicode"),
        ({"expected_status": []}, "expected_status: must name at least one"),
        ({"expected_status": ["2xx"]}, "expected_status[0]: '2xx' is neither"),
        ({"expected_status": [200, "299-200"]}, "expected_status[1]: "),
        ({"expected_status": [20]}, "expected_status[0]: "),
        ({"headers": {"A b": "c"}}, "headers: 'A b' is not a header's name"),
        ({"headers": {"A": "c\r\nX: y"}}, "headers.A: has a control character"),
        ({"proxy": "nothing"}, "proxy: must be"),
        ({"ca_file": "/nowhere.pem"}, "ca_file: cannot read /nowhere.pem: No such file"),
        ({"kind": "tcp", "url": "tcp://x"}, "url: 'tcp://x' has no port"),
        ({"kind": "tcp", "url": "tcp://x:1/path"}, "url: must be tcp://host:port"),
        ({"kind": "websocket"}, "must start with ws:// or wss://"),
    ],
)
def test_what_makes_no_sense_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_job({"id": 1, "url": "http://x/", **fields})
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": 0},
        {"interval": 0},
        {"interval": 1e9},
        {"timeout": -1},
        {"retries": 11},
        {"ip_version": "5"},
        {"max_body_bytes": 0},
        {"nonsense": 1},
        {"url": None},
    ],
)
def test_what_is_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        read_job({"id": 1, "url": "http://x/", **fields})


status = st.integers(100, 999)


@given(st.lists(st.one_of(status, st.tuples(status, status).map(sorted)), min_size=1))
def test_expected_status_is_the_union_of_codes_and_ranges(items: list[Any]) -> None:
    written = [item if isinstance(item, int) else f"{item[0]}-{item[1]}" for item in items]
    expected = set()
    for item in items:
        expected |= {item} if isinstance(item, int) else set(range(item[0], item[1] + 1))
    found = expected_codes(written)
    assert {code for code in range(1000) if any(code in codes for codes in found)} == expected


@given(st.text(max_size=12))
def test_any_text_is_a_status_or_one_clear_error(text: str) -> None:
    try:
        expected_codes([text])
    except SettingError as error:
        assert str(error).startswith("expected_status[0]: ")


def test_two_jobs_with_one_id_are_refused() -> None:
    jobs: list[Job] = [HttpJob(id=i, url="http://a/") for i in (1, 2, 1)]
    with pytest.raises(SettingError, match=r"^jobs\[2\]\.id: jobs\[0\] also has the id 1"):
        ProbesSettings(jobs=jobs).verify()


def test_a_password_is_never_shown() -> None:
    job = HttpJob(id=1, url="http://user:hunter2@x/path")
    assert job.shown_url == "http://user:***@x/path"


def request(url: str = "http://u:p@a.org/x", **fields: Any) -> Request:
    return Request.of(HttpJob(id=1, url=url, **fields))


def test_credentials_do_not_follow_to_another_host() -> None:
    first = request(headers={"Authorization": "Bearer t", "Cookie": "c", "X-Mine": "m"})
    assert (first.credentials, first.place.bare) == ((b"u", b"p"), "http://a.org/x")
    assert first.cookie == b"c"
    secure = request("https://u:p@a.org/", headers={"Authorization": "Bearer t", "Cookie": "c"})
    for before, place in ((first, b"http://a.org/y"), (first, b"/y"), (first, b"https://a.org/")):
        same = before.redirected(302, place)
        assert same.credentials == (b"u", b"p")
        assert same.cookie == b"c"
        assert b"Authorization: Bearer t" in same.headers
    for before, place in (
        (first, b"http://b.org/"),
        (first, b"//b.org/"),
        (first, b"http://a.org:81/"),
        (secure, b"http://a.org/"),
    ):
        other = before.redirected(302, place)
        assert (other.credentials, other.cookie) == (None, None)
        assert (b"X-Mine: m" in other.headers) == (before is first)
        assert not [line for line in other.headers if line.lower().startswith((b"auth", b"cook"))]


@pytest.mark.parametrize("away", [b"http://b.org/", b"http://a.org:81/"])
def test_what_is_the_hosts_own_is_sent_again_after_a_visit_to_another_host(away: bytes) -> None:
    own = {"Authorization": "Bearer t", "Cookie": "c", "Host": "v.org", "Content-Type": "text/x"}
    first = request(method="POST", body="data", headers=own)
    there = first.redirected(307, away)
    back = there.redirected(307, b"http://a.org/back")
    assert (back.credentials, back.cookie) == (first.credentials, first.cookie)
    assert (back.headers, back.body) == (first.headers, first.body)
    secure = there.redirected(303, b"https://a.org/back")
    assert (secure.credentials, secure.cookie) == (first.credentials, first.cookie)
    assert not [line for line in secure.headers if line.startswith(b"Content-Type:")]
    fetched = first.redirected(303, away).redirected(307, b"http://a.org/back")
    assert fetched.body is None
    assert not [line for line in fetched.headers if line.startswith(b"Content-Type:")]


@pytest.mark.parametrize(
    ("method", "code", "then"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("POST", 303, "GET"),
        ("POST", 307, "POST"),
        ("PUT", 302, "PUT"),
        ("PUT", 303, "GET"),
        ("HEAD", 303, "HEAD"),
    ],
)
def test_the_method_after_a_redirect(method: str, code: int, then: str) -> None:
    found = request(method=method, body="data").redirected(code, b"http://a.org/y")
    assert found.method == then
    assert (found.body is None) == (then == "GET")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://x/", "http://", "//"])
def test_a_redirect_to_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(SettingError):
        request().redirected(302, url.encode())


def test_a_jobs_file_keeps_the_good_and_names_the_bad(tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    items = [
        {"id": 3, "url": "http://c/"},
        {"id": 1, "url": "http://a/", "timeot": 1},
        {"id": 2, "url": "http://b/", "body_regexp": "("},
        {"id": 3, "url": "http://again/"},
        "nonsense",
        {"url": "http://x/"},
    ]
    file.write_text(json.dumps(items))
    found = read_jobs(file)
    assert [job.id for job in found.jobs] == [3]
    assert [line.removeprefix(f"{file}: ").partition(":")[0] for line in found.refused] == [
        "job 1",
        "job 2",
        "job 3",
        "jobs[4]",
        "jobs[5]",
    ]
    assert "timeot" in found.refused[0]
    file.write_text("jobs:\n- {id: 7, url: 'http://y/'}\n")
    assert [job.id for job in read_jobs(file).jobs] == [7]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[1, 2", "not JSON"),
        (b"a: [", "not YAML"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"just: text", "holds no list"),
        (b"", "holds no list"),
        (b"[" * 100_000, "not JSON"),
        (None, "cannot read"),
    ],
)
def test_a_jobs_file_that_is_none_is_one_clear_line(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "jobs"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError) as caught:
        read_jobs(file)
    assert str(caught.value).startswith("jobs_file: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.integration_test
def test_an_expression_is_compiled_within_bounds() -> None:
    ranges = "".join(f"{chr(256 + n)}-\uffff" for n in range(1500))
    for expression, said in (
        ("a-b" * 100 + "(", "missing ), unterminated subpattern"),
        (f"(?i)[{ranges}]", "it takes more than 2 s to compile"),
        ("x" * 8193, "longer than 8192 characters"),
        ("(" * 8000, "recursion"),
        ("\ud800", "half of a surrogate pair"),
    ):
        with pytest.raises(SettingError, match=re.escape(said)):
            HttpJob(id=1, url="http://a", body_regexp=expression).verify()
    HttpJob(id=1, url="http://a", body_regexp="[0-9a-f]-" * 100).verify()


GOOD_JSON = '{"jobs": [{"id": 1, "url": "http://a"}, {"id": 2, "url": "tcp://b:1", "kind": "tcp"}]}'
GOOD_YAML = """\
- &a {id: 1, url: http://a, headers: {x: y}, retries: 2}
- {<<: *a, id: 2, body_regexp: "a+", expected_status: [200, 300-399]}
"""


@given(broken(GOOD_JSON, GOOD_YAML))
@settings(max_examples=examples(300))
def test_any_bytes_are_jobs_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any-jobs"
    file.write_bytes(content)
    try:
        said = list(read_jobs(file).refused)
    except SettingError as error:
        said = [str(error)]
    for line in said:
        assert str(file) in line


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60),
    st.integers(1, 9),
)
def test_slots_are_bounded_and_slow_jobs_get_half(
    events: list[tuple[bool, bool]], limit: int
) -> None:
    slots = Slots(limit)
    taken: list[bool] = []
    offered = 0
    for number, (offer, slow) in enumerate(events):
        if offer:
            slots.offer(Run(number, float(number), 0), slow=slow)
            offered += 1
        elif taken:
            slots.release(slow=taken.pop(0))
        while (found := slots.take()) is not None:
            taken.append(found[1])
        assert slots.open == len(taken) <= limit
        assert sum(taken) <= max(1, limit // 2)


def test_jobs_that_answer_start_while_slow_ones_wait() -> None:
    slots = Slots(4)
    for number in range(10):
        slots.offer(Run(number, 0.0, 0), slow=True)
    assert [slots.take() for _ in range(3)][2] is None
    slots.offer(Run(99, 1.0, 0), slow=False)
    found = slots.take()
    assert found is not None
    assert found[0].job_id == 99


@pytest.mark.parametrize("half", ["", ', "name": "\\ud800"'])
def test_a_key_that_is_there_twice_is_refused(tmp_path: Path, half: str) -> None:
    file = tmp_path / "jobs.json"
    file.write_text(
        '[{"id": 1, "url": "http://a/", "url": "http://b/"},'
        ' {"id": 2, "url": "http://a/", "headers": {"A": "1", "A": "2"}},'
        f' {{"id": 3, "url": "http://a/"}}, {{"id": 4, "url": "http://a/"{half}}}]'
    )
    found = read_jobs(file)
    assert [job.id for job in found.jobs] == ([3] if half else [3, 4])
    assert "job 1: url: duplicate key" in found.refused[0]
    assert "job 2: headers.A: duplicate key" in found.refused[1]


def test_jobs_are_listed_once_in_yaml(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yml"
    file.write_text('jobs: [{id: 1, url: "http://a/"}]\njobs: []\n')
    with pytest.raises(SettingError, match="jobs: duplicate key"):
        read_jobs(file)


def test_a_job_as_long_as_a_file_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "jobs.json"
    long = json.dumps("x" * 2**20)
    file.write_text(
        f'[{{"id": 1, "url": "http://a/", "name": {long}}}, {{"id": 2, "url": "http://a/"}}]'
    )
    found = read_jobs(file)
    assert [job.id for job in found.jobs] == [2]
    assert found.refused == (f"{file}: jobs[0]: longer than 1048576 bytes",)


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_key_that_is_there_twice_is_found_at_any_depth(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"jobs.{form}"
    good = '{"id": 3, "url": "http://a/", "tags": ["a", "a"]}'
    bad = '{"id": 1, "kind": "tcp", "url": "tcp://a:1", "dialogue": [{"send": "x", "send": "y"}]}'
    worse = '{"id": 2, "url": "http://a/", "header_regexps": {"A": "x", "A": "y"}}'
    text = f"[{good}, {bad}, {worse}]" if form == "json" else f"- {good}\n- {bad}\n- {worse}\n"
    file.write_text(text)
    found = read_jobs(file)
    assert [job.id for job in found.jobs] == [3]
    assert "job 1: dialogue[0].send: duplicate key" in found.refused[0]
    assert "job 2: header_regexps.A: duplicate key" in found.refused[1]
    file.write_text(f"- &one {good}\n- {{<<: *one, id: 4}}\n")
    assert [job.id for job in read_jobs(file).jobs] == [3, 4]
    file.write_text(f'{{"jobs": [{good}], "jobs": []}}')
    with pytest.raises(SettingError, match="jobs: duplicate key"):
        read_jobs(file)
