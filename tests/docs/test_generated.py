"""The generated parts of the reference are up to date."""

from __future__ import annotations

import re

import pytest

from docs.generate import PAGES, renewed
from docs.generate.architecture import missing_links
from docs.generate.packaged_config import PACKAGED_CONFIG, with_every_key


@pytest.mark.parametrize(
    ("name", "text", "anew"),
    [(str(file.relative_to(PAGES.parent)), text, anew) for file, text, anew in renewed()],
    ids=lambda value: value if value.endswith(".md") and "\n" not in value else "",
)
def test_a_generated_page_is_as_the_code_says(name: str, text: str, anew: str) -> None:
    assert text == anew, f"{name} is old: run make reference"


def test_every_arrow_of_the_architecture_is_backed_by_an_import() -> None:
    assert list(missing_links()) == []


def test_a_key_that_the_packaged_config_lacks_joins_each_section_that_has_it() -> None:
    lines = PACKAGED_CONFIG.read_text().splitlines(keepends=True)
    lacking = "".join(line for line in lines if "client_stall:" not in line)
    added = re.findall(r"(?m)^(#?)  client_stall: 30 +# s that", with_every_key(lacking))
    assert added == ["", "#"]  # the relay is on, the api is off
