"""Certificates that operators and their programs put in place, whole and in pieces."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from monitor.errors import SettingError
from monitor.transport.tls import Certificates, TLSSettings, read_tls

AUTHORITY = trustme.CA()
ISSUED = [AUTHORITY.issue_cert("localhost") for _ in range(3)]
CHAINS = [each.cert_chain_pems[0].bytes() for each in ISSUED]
KEYS = [each.private_key_pem.bytes() for each in ISSUED]


def in_form(number: int, form: str, passphrase: bytes | None) -> bytes:
    key = serialization.load_pem_private_key(KEYS[number], None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, form),
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


@pytest.fixture
def settings(tmp_path: Path) -> TLSSettings:
    (tmp_path / "cert.pem").write_bytes(CHAINS[0])
    (tmp_path / "key.pem").write_bytes(KEYS[0])
    return TLSSettings(certificate=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"))


@pytest.mark.parametrize(
    ("chain", "key", "said"),
    [
        (CHAINS[0], KEYS[1], "tls: cannot use CERT with KEY: the key is another certificate's"),
        (CHAINS[0], in_form(0, "PKCS8", b"x"), "tls.key: KEY has a passphrase, which"),
        (CHAINS[0], in_form(0, "TraditionalOpenSSL", b"x"), "tls.key: KEY has a passphrase"),
        (CHAINS[0], KEYS[0][:-20], "tls.key: KEY has no complete key in PEM"),
        (CHAINS[0], b"", "tls.key: KEY has no complete key in PEM"),
        (CHAINS[0], CHAINS[0], "tls.key: KEY has no complete key in PEM"),
        (CHAINS[0][:300], KEYS[0], "tls.certificate: CERT has no complete certificate in PEM"),
        (KEYS[0], KEYS[0], "tls.certificate: CERT has no complete certificate in PEM"),
        (CHAINS[0].replace(b"\nM", b"\n-", 1), KEYS[0], "tls: cannot use CERT with KEY: "),
    ],
)
def test_files_that_do_not_fit_say_why(
    settings: TLSSettings, chain: bytes, key: bytes, said: str
) -> None:
    Path(settings.certificate).write_bytes(chain)
    Path(settings.key).write_bytes(key)
    with pytest.raises(SettingError) as caught:
        read_tls(settings)
    said = said.replace("CERT", settings.certificate).replace("KEY", settings.key)
    assert str(caught.value).startswith(said)


def test_a_key_of_each_form_is_read(settings: TLSSettings) -> None:
    for form in ("PKCS8", "TraditionalOpenSSL"):
        Path(settings.key).write_bytes(b"a comment\n" + in_form(0, form, None) + CHAINS[0])
        assert read_tls(settings).expires_at


Way = Callable[[Path, int, Callable[[], Awaitable[None]]], Awaitable[None]]


async def _key_first(folder: Path, number: int, seen: Callable[[], Awaitable[None]]) -> None:
    (folder / "key.pem").write_bytes(KEYS[number])
    await seen()
    (folder / "cert.pem").write_bytes(CHAINS[number])


async def _in_pieces(folder: Path, number: int, seen: Callable[[], Awaitable[None]]) -> None:
    (folder / "cert.pem").write_bytes(CHAINS[number][:300])
    (folder / "key.pem").write_bytes(KEYS[number])
    await seen()
    (folder / "cert.pem").write_bytes(CHAINS[number])


async def _links(folder: Path, number: int, seen: Callable[[], Awaitable[None]]) -> None:
    """Replace symbolic links one after the other, as certbot does."""
    for name, content in (("cert.pem", CHAINS[number]), ("key.pem", KEYS[number])):
        (folder / f"{number}-{name}").write_bytes(content)
        (folder / "link").symlink_to(f"{number}-{name}")
        (folder / "link").replace(folder / name)
        if name == "cert.pem":
            await seen()


async def _folder(folder: Path, number: int, seen: Callable[[], Awaitable[None]]) -> None:
    """Replace the link to the folder of both, as Kubernetes does with secrets."""
    (folder / f"..{number}").mkdir()
    (folder / f"..{number}" / "cert.pem").write_bytes(CHAINS[number])
    (folder / f"..{number}" / "key.pem").write_bytes(KEYS[number])
    (folder / "link").symlink_to(f"..{number}")
    (folder / "link").replace(folder / "..data")
    for name in ("cert.pem", "key.pem"):
        if not (folder / name).is_symlink():
            (folder / name).unlink()
            (folder / name).symlink_to(f"..data/{name}")
    for old in folder.glob(f"..{number - 1}"):
        shutil.rmtree(old)


@pytest.mark.parametrize("way", [_key_first, _in_pieces, _links, _folder])
async def test_new_files_are_taken_up_however_they_come(
    settings: TLSSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    monkeypatch.setattr("monitor.transport.tls._LOOK_S", 0.01)
    served = Certificates(read_tls(settings))
    renewed, failed = asyncio.Event(), asyncio.Event()

    def fail(_: str) -> None:
        failed.set()

    async def seen() -> None:
        failed.clear()
        await failed.wait()

    looks, looked = itertools.count(), asyncio.Event()

    def in_force() -> TLSSettings:
        # At the second look it has seen the files that are there.
        if next(looks) == 1:
            looked.set()
        return settings

    following = asyncio.create_task(served.follow(in_force, renewed=renewed.set, failed=fail))
    async with asyncio.timeout(60):
        await looked.wait()
        for number in (1, 2):
            renewed.clear()
            await way(tmp_path, number, seen)
            await renewed.wait()
    following.cancel()


def test_what_is_wrong_with_both_files_is_told_at_once() -> None:
    with pytest.raises(SettingError) as caught:
        read_tls(TLSSettings(certificate="/etc/passwd", key="/nowhere"))
    assert [str(each) for each in (caught.value, *caught.value.others)] == [
        "tls.certificate: /etc/passwd has no complete certificate in PEM",
        "tls.key: cannot read /nowhere: No such file or directory",
    ]
