"""Writes the generated blocks into the pages."""

from __future__ import annotations

from docs.generate import renewed

for file, before, now in renewed():
    if now != before:
        file.write_text(now, encoding="utf-8")
        print(f"renewed {file.name}")
