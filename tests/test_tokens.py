from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import SettingError
from monitor.tokens import (
    ANYONE,
    Principal,
    Role,
    TokenFile,
    Tokens,
    create_token,
    is_loopback,
    require_tokens,
)
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
@settings(max_examples=300)
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
        with pytest.raises(SettingError, match=r"uri: .*open to others"):
            require_tokens((host, 1), Tokens(), key="uri")
    require_tokens((host, 1), Tokens([("0" * 64, ANYONE)]), key="uri")
