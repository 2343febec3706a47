"""``make screenshots``: the page's views as docs/screenshots/ has them, of the demonstration."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from demo.__main__ import demonstration

_FOLDER = Path(__file__).resolve().parents[1] / "docs" / "screenshots"
VIEWS = {
    # The range has a rollout, and the outage that followed.
    "overview": "#/?time={since}-{until}",
    "sites": "#/sites",
    "site": "#/sites/5",
    "models": "#/models",
    "logs": "#/logs",
    "relay": "#/relay",
    "channel": "#/relay/student_4201",
    "incidents": "#/incidents",
    "maintenance": "#/incidents/maintenance",
    "topics": "#/topics",
    "editor": "#/sites/5/edit",
}
_SIZES = {"desktop": (1280, 860), "phone": (390, 844)}
# Each view by day on a desktop and by night on a phone; the overview both ways.
_KEPT = (("desktop", "light"), ("phone", "dark"))


def main() -> int:
    """Take them all."""
    parser = argparse.ArgumentParser(prog="make screenshots", description=__doc__)
    parser.add_argument("--url", help="of a daemon that runs; without it, a demonstration is run")
    parser.add_argument("--wait", type=float, default=90.0, help="s for things to happen first")
    parser.add_argument("--every", action="store_true", help="each view in each way")
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.url:
        _all(args.url, args.folder, every=args.every)
        return 0
    with demonstration() as running:
        time.sleep(args.wait)
        _all(running.url, args.folder, every=args.every)
    return 0


def _all(url: str, folder: Path, *, every: bool) -> None:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
        )
        for size in _SIZES:
            for scheme in ("light", "dark"):
                names = list(VIEWS) if every or (size, scheme) in _KEPT else ["overview"]
                _views(browser, url, folder, names, size=size, scheme=scheme)
        browser.close()


def _views(
    browser: Browser, url: str, folder: Path, names: list[str], *, size: str, scheme: str
) -> None:
    width, height = _SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=1 if size == "desktop" else 1.5,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector('body[data-connection="live"]')
    for name in names:
        _shown(page, VIEWS[name])
        page.screenshot(path=folder / f"{name}-{size}-{scheme}.png")
    if (size, scheme) in _KEPT:
        page.goto(f"{url}/status")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=folder / f"status-{size}-{scheme}.png")
    context.close()


def _shown(page: Page, fragment: str) -> None:
    now = int(time.time())
    address = fragment.format(since=now - 100 * 60, until=now - 40 * 60)
    page.evaluate("fragment => { location.hash = fragment; }", address)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1300)


if __name__ == "__main__":
    sys.exit(main())
