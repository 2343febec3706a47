from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import SettingError
from monitor.tokens import (
    ANYONE,
    LastUse,
    Principal,
    Role,
    TokenFile,
    Tokens,
    create_token,
    digest,
    is_loopback,
    require_tokens,
    revoke_token,
)
from tests.examples import examples
from tests.files.broken import broken


def read(file: Path) -> Tokens:
    return TokenFile(file).read()


def test_a_missing_file_has_no_tokens_and_lets_anyone_in(tmp_path: Path) -> None:
    tokens = read(tmp_path / "tokens.yml")
    assert len(tokens) == 0
    assert tokens.identify(None) == ANYONE
    assert tokens.identify("whatever") == ANYONE


def test_a_created_token_identifies_its_owner_and_is_stored_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    ops = create_token(file, "ops", Role.ADMIN)
    addon = create_token(file, "addon-1", Role.SENDER)
    tokens = read(file)
    assert tokens.identify(ops) == Principal("ops", Role.ADMIN)
    assert tokens.identify(addon) == Principal("addon-1", Role.SENDER)
    assert tokens.identify(None) is None
    assert tokens.identify("") is None
    assert tokens.identify(ops + "x") is None
    assert tokens.identify("\ud800") is None
    text = file.read_text()
    assert ops not in text
    assert addon not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_only_a_senders_token_fixes_the_sender() -> None:
    assert Principal("a", Role.SENDER).sender == "a"
    assert Principal("a", Role.ADMIN).sender is None
    rights = {
        role: (Principal("a", role).may_read, Principal("a", role).may_upload) for role in Role
    }
    assert rights == {
        Role.ADMIN: (True, True),
        Role.READER: (True, False),
        Role.SENDER: (False, True),
    }


def test_a_name_that_is_taken_or_bad_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    create_token(file, "ops", Role.ADMIN)
    before = file.read_bytes()
    with pytest.raises(SettingError, match="already"):
        create_token(file, "ops", Role.READER)
    with pytest.raises(SettingError, match="control"):
        create_token(file, "new\nline", Role.READER)
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["tokens.yml"]


def test_tokens_created_at_once_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    threads = [
        threading.Thread(target=create_token, args=(file, f"addon-{n}", Role.SENDER))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read(file)) == 8


@pytest.mark.parametrize(
    "content",
    [
        "tokens: [{name: a, role: king, hash: 'sha256:" + "0" * 64 + "'}]",
        "tokens: [{name: a, role: admin, hash: secret-token-in-clear}]",
        "tokens: [{name: a, role: admin}]",
        "tokens: [{name: a, role: admin, hash: 'sha256:" + "0" * 64 + "', more: 1}]",
        "{",
        "- a",
        "\0",
        "tokens: 7",
        r'"\ud800"',
        r'tokens: [{name: "\ud800"}]',
    ],
)
def test_a_wrong_file_is_refused_in_one_line_without_its_content(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "tokens.yml"
    file.write_text(content)
    with pytest.raises(SettingError) as caught:
        read(file)
    assert "\n" not in str(caught.value)
    assert "secret-token" not in str(caught.value)
    assert str(file) in str(caught.value)


LINES = "tokens:\n- &a {name: a, role: admin, hash: 'sha256:" + "0" * 64 + "'}\n"


@given(broken(LINES, LINES + "- {<<: *a, name: b, hash: 'sha256:" + "1" * 64 + "'}\n"))
@settings(max_examples=examples(300))
def test_any_bytes_are_tokens_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any-tokens.yml"
    file.write_bytes(content)
    try:
        read(file)
    except SettingError as error:
        assert str(file) in str(error)
        assert "\n" not in str(error)


def test_a_file_that_cannot_be_read_is_no_file_without_tokens(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot read"):
        read(tmp_path)
    with pytest.raises(SettingError, match="cannot write"):
        create_token(tmp_path / "missing" / "tokens.yml", "a", Role.ADMIN)


@given(st.text(max_size=60))
def test_no_text_but_the_token_is_one(guess: str) -> None:
    tokens = Tokens([("0" * 64, Principal("ops", Role.ADMIN))])
    assert tokens.identify(guess) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("*", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    if expected:
        require_tokens((host, 1), Tokens(), key="uri")
    else:
        with pytest.raises(SettingError, match=r"uri: .*open to other hosts"):
            require_tokens((host, 1), Tokens(), key="uri")
    require_tokens((host, 1), Tokens([("0" * 64, ANYONE)]), key="uri")


def test_a_token_may_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens.yml"
    now = time.time()
    short = create_token(file, "short", Role.READER, expires=now + 3600)
    long = create_token(file, "long", Role.READER)
    found = TokenFile(file)
    found.load()
    before = found.current
    assert found.current is before
    assert found.current.identify(short) is not None
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    assert found.current is not before
    assert found.current.identify(short) is None
    assert found.current.identify(long) is not None
    monkeypatch.setattr(time, "time", lambda: now + 1e9)
    # An expired token is not the same as none.
    assert len(found.current) == 2
    assert found.current.identify(None) is None


@pytest.mark.parametrize("end", ["soon", "''", "2027-13-45", "12", "[1]", "9999-12-31T25:00"])
def test_an_end_that_is_no_time_is_an_error_with_the_owners_name(tmp_path: Path, end: str) -> None:
    file = tmp_path / "tokens.yml"
    create_token(file, "ops", Role.ADMIN)
    file.write_text(file.read_text() + f"  expires: {end}\n")
    with pytest.raises(SettingError, match="expires"):
        read(file)


def test_a_revoked_token_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    ops, wall = (create_token(file, name, Role.READER) for name in ("ops", "wall"))
    assert revoke_token(file, "ops") == 1
    tokens = read(file)
    assert tokens.identify(ops) is None
    assert tokens.identify(wall) is not None
    with pytest.raises(SettingError, match="no token named 'ops'"):
        revoke_token(file, "ops")
    assert revoke_token(file, "wall") == 0
    # Empty on purpose, which a reload accepts.
    assert len(TokenFile(file).read(after=tokens)) == 0


async def test_the_last_use_of_a_token_outlives_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    file = tmp_path / "tokens.yml"
    used, unused = (create_token(file, name, Role.READER) for name in ("used", "unused"))
    found = TokenFile(file)
    found.load()
    before = time.time()
    assert found.current.identify(used) is not None
    assert found.current.identify("wrong") is None
    await found.uses.save()
    assert (tmp_path / "token-use.json").stat().st_mode & 0o777 == 0o640
    again = LastUse().load()
    at = again.of(digest(used))
    assert at is not None
    assert at >= before
    assert again.of(digest(unused)) is None
    # A second daemon with the same state takes nothing away.
    other = TokenFile(file)
    other.current = other.read()
    assert other.current.identify(unused) is not None
    await other.uses.save()
    assert LastUse().load().of(digest(used)) == at
    (tmp_path / "token-use.json").write_text("rubbish")
    assert LastUse().load().of(digest(used)) is None


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monitor", "token", *arguments, "-c", str(folder / "config.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "STATE_DIRECTORY": str(folder), "TZ": "UTC"},
    )


@pytest.mark.integration_test
def test_the_command_creates_lists_and_revokes(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    (tmp_path / "config.yml").write_text(f"api: {{tokens_file: {file}}}")
    created = command(tmp_path, "create", "wall", "--role", "reader", "--expires", "90d")
    assert created.returncode == 0, created.stderr
    assert read(file).identify(created.stdout.strip()) is not None
    assert "It expires at" in created.stderr
    assert command(tmp_path, "create", "ops", "--role", "admin").returncode == 0
    listed = command(tmp_path, "list").stdout.splitlines()
    assert listed[0].split() == ["NAME", "ROLE", "EXPIRES", "LAST", "USE"]
    assert re.fullmatch(r"wall +reader +\d{4}-\d\d-\d\d .*\+00:00 +-", listed[1]), listed
    assert re.fullmatch(r"ops +admin +never +-", listed[2])
    assert command(tmp_path, "revoke", "wall").returncode == 0
    last = command(tmp_path, "revoke", "ops")
    assert "it was the last one" in last.stderr
    assert len(command(tmp_path, "list").stdout.splitlines()) == 1


@pytest.mark.integration_test
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["create", "x"], "--role is needed"),
        (["create", "--role", "admin"], "a name is needed"),
        (["create", "x", "--role", "admin", "--expires", "soon"], "--expires: expected"),
        (["create", "x", "--role", "admin", "--expires", "2001-01-01"], "is in the past"),
        (["create", "x", "--role", "admin", "--expires", "999999999w"], "--expires: expected"),
        (["list", "x"], "takes no name"),
        (["revoke", "x"], "has no token named"),
        (["revoke"], "a name is needed"),
        (["revoke", "x", "--role", "admin"], "takes no --role"),
    ],
)
def test_a_command_line_that_is_wrong_says_what(
    tmp_path: Path, arguments: list[str], problem: str
) -> None:
    (tmp_path / "config.yml").write_text(f"api: {{tokens_file: {tmp_path}/tokens.yml}}")
    done = command(tmp_path, *arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1
