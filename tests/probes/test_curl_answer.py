"""What libcurl's builds say differently is understood alike."""

from __future__ import annotations

import pycurl
import pytest

from monitor.probes.curl_answer import Body, certificate_expiry


class Easy:
    """Stands for a handle of the builds that this machine's libcurl is not."""

    def __init__(self, chain: list[list[tuple[str, str]]]) -> None:
        self._chain = chain

    def getinfo(self, what: int) -> object:
        assert what == pycurl.INFO_CERTINFO
        return self._chain


@pytest.mark.parametrize(
    "chain",
    [
        [
            [("Expire date", "Jan  1 00:00:00 2030 GMT")],
            [("Expire date", "May  2 10:00:00 2031 GMT")],
        ],
        [
            [("Expire Date", "2031-05-02 10:00:00 GMT")],
            [("Expire Date", "2030-01-01 00:00:00 GMT")],
        ],
        [[("Expire Date", "2030-01-01 00:00:00 GMT")], [("Expire Date", "nonsense")]],
    ],
)
def test_the_earliest_expiry_of_openssl_and_of_gnutls(chain: list[list[tuple[str, str]]]) -> None:
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
