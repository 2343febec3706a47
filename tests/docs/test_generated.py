"""The generated parts of the reference are up to date."""

from __future__ import annotations

import pytest

from docs.generate import PAGES, renewed
from docs.generate.architecture import missing_links


@pytest.mark.parametrize(
    ("name", "text", "anew"),
    [(str(file.relative_to(PAGES.parent)), text, anew) for file, text, anew in renewed()],
    ids=lambda value: value if value.endswith(".md") and "\n" not in value else "",
)
def test_a_generated_page_is_as_the_code_says(name: str, text: str, anew: str) -> None:
    assert text == anew, f"{name} is old: run make reference"


def test_every_arrow_of_the_architecture_is_backed_by_an_import() -> None:
    assert list(missing_links()) == []
