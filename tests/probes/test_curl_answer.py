"""What libcurl's builds say differently is understood alike."""

from __future__ import annotations

import pycurl
import pytest

from monitor.probes.checks.http.curl_answer import Body, certificate_expiry


class Easy:
    """Stands for a handle of the builds that this machine's libcurl is not."""

    def __init__(self, chain: list[list[tuple[bytes, bytes]]]) -> None:
        self._chain = chain

    def getinfo_raw(self, what: int) -> object:
        assert what == pycurl.INFO_CERTINFO
        return self._chain


@pytest.mark.parametrize(
    "chain",
    [
        [
            [(b"Expire date", b"Jan  1 00:00:00 2030 GMT")],
            [(b"Expire date", b"May  2 10:00:00 2031 GMT")],
        ],
        [
            [(b"Expire Date", b"2031-05-02 10:00:00 GMT")],
            [(b"Expire Date", b"2030-01-01 00:00:00 GMT")],
        ],
        [[(b"Expire Date", b"2030-01-01 00:00:00 GMT")], [(b"Expire Date", b"nonsense")]],
    ],
)
def test_the_earliest_expiry_of_openssl_and_of_gnutls(
    chain: list[list[tuple[bytes, bytes]]],
) -> None:
    assert certificate_expiry(Easy(chain)) == 1893456000.0


def test_no_certificates_have_no_expiry() -> None:
    assert certificate_expiry(Easy([])) is None


def test_a_body_stops_at_its_bound() -> None:
    body = Body(10, keep=True)
    assert body.write(b"12345") is None
    assert body.write(b"67890") is None
    assert body.content() == b"1234567890"
    assert body.write(b"x") == -1
    assert body.too_large
