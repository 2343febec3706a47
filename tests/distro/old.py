"""Packages of before: the layout of the ReCodEx monitor 1.x, made by hand, and our last one.

The layout is a fact of 1.3's packages: code in the Python version's directory, the unit in
/lib, the config and its directory owned by the daemon's user, Type=simple. What runs in it
here is a stand-in that sleeps: only its files and its user matter to an upgrade.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.distro.built import FAST

OLD_CONFIG = """---
websocket_uri:
    - "0.0.0.0"
    - 4567
zeromq_uri:
    - "0.0.0.0"
    - 7894
logger:
    file: "/var/log/recodex/monitor.log"
    level: "debug"  # level of logging - one of "debug", "info", "warning", "error", "critical"
    max-size: 1048576  # 1 MB; max size of file before log rotation
    rotations: 3  # number of rotations kept
...
"""
# What the operator has made of the file since.
EDITED_CONFIG = OLD_CONFIG.replace('"debug"  # level', '"verbose"  # level').replace("3  #", "7  #")

_UNIT = """[Unit]
Description=Recodex Monitor

[Service]
Type=simple
StandardError=journal
User=recodex
Group=recodex
ExecStart=/usr/bin/recodex-monitor -c /etc/recodex/monitor/config.yml

[Install]
WantedBy=multi-user.target
"""
_PROGRAM = """#!/usr/bin/python3
import time
open("/var/log/recodex/monitor.log", "a").write("old monitor\\n")
time.sleep(10**6)
"""
_USER = """
getent group recodex >/dev/null || groupadd -r recodex
getent passwd recodex >/dev/null || useradd -r -g recodex -d /etc/recodex -s /sbin/nologin recodex
"""
_OWNERS = "chown -R recodex:recodex /etc/recodex/monitor /var/log/recodex\n"
_FILES = {
    "etc/recodex/monitor/config.yml": (0o600, OLD_CONFIG),
    "lib/systemd/system/recodex-monitor.service": (0o644, _UNIT),
    "usr/bin/recodex-monitor": (0o755, _PROGRAM),
    "usr/lib/python3/dist-packages/monitor/__init__.py": (0o644, ""),
    "usr/lib/python3/dist-packages/monitor/main.py": (0o644, "raise SystemExit('the old one')\n"),
}


def old_deb(directory: Path, *, conffile: bool) -> Path:
    """Make recodex-monitor 1.3.0 as a Debian package, its config a conffile or a mere file."""
    root = directory / "root"
    _write_files(root)
    control = root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        "Package: recodex-monitor\nVersion: 1.3.0-1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@recodex-monitor.invalid>\nDepends: python3\n"
        "Description: the old monitor's layout\n"
    )
    if conffile:
        (control / "conffiles").write_text("/etc/recodex/monitor/config.yml\n")
    start = "systemctl daemon-reload\nsystemctl enable --now recodex-monitor.service\n"
    _script(control / "postinst", f"#!/bin/sh\nset -e\n{_USER}{_OWNERS}{start}")
    return _pack(root, directory / "recodex-monitor_1.3.0-1_all.deb")


def blocking_deb(directory: Path) -> Path:
    """Make a package that owns a file of ours."""
    root = directory / "blocking"
    (root / "usr/share/recodex-monitor").mkdir(parents=True)
    (root / "usr/share/recodex-monitor/instance").touch()
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: blocking\nVersion: 1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@recodex-monitor.invalid>\nDescription: in the way\n"
    )
    return _pack(root, directory / "blocking_1_all.deb")


def earlier_deb(deb: Path, directory: Path) -> Path:
    """Make of a package the one before it: an earlier version whose default config differs."""
    root = directory / "root"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, root], check=True, timeout=60)
    control = root / "DEBIAN" / "control"
    lines = control.read_text().splitlines(keepends=True)
    control.write_text(
        "".join(
            "Version: 2.0.0~before\n" if line.startswith("Version:") else line for line in lines
        )
    )
    config = root / "etc/recodex/monitor/config.yml"
    config.write_text("# The config of the version before.\n" + config.read_text())
    # Its checksums are not what an upgrade looks at.
    (root / "DEBIAN" / "md5sums").unlink()
    return _pack(root, directory / "recodex-monitor_2.0.0~before_all.deb")


def old_rpm(directory: Path) -> Path:
    """Make recodex-monitor 1.3.0 as an RPM package."""
    root = directory / "files"
    _write_files(root)
    spec = directory / "old.spec"
    listed = "\n".join(f"/{name}" for name in _FILES if name.startswith(("lib/", "usr/bin/")))
    spec.write_text(
        "Name: recodex-monitor\nVersion: 1.3.0\nRelease: 1\nSummary: The old monitor's layout\n"
        "License: MIT\nBuildArch: noarch\n%description\nThe old monitor's layout.\n"
        f"%install\ncp -a {root}/. %{{buildroot}}\nmkdir -p %{{buildroot}}/var/log/recodex\n"
        f"%pre\n{_USER}exit 0\n"
        "%postun\nif [ $1 -ge 1 ] && [ -d /run/systemd/system ]; then\n"
        "    systemctl try-restart recodex-monitor.service || :\nfi\n"
        f"%files\n{listed}\n/usr/lib/python3/dist-packages/monitor/\n"
        "%dir %attr(-,recodex,recodex) /etc/recodex/monitor\n"
        "%dir %attr(-,recodex,recodex) /var/log/recodex\n"
        "%config(noreplace) %attr(0600,recodex,recodex) /etc/recodex/monitor/config.yml\n"
    )
    subprocess.run(
        [
            *("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {directory / 'top'}"),
            *("--define", f"_rpmdir {directory}", "--define", f"_tmppath {directory}", spec),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return directory / "noarch" / "recodex-monitor-1.3.0-1.noarch.rpm"


def _write_files(root: Path) -> None:
    for name, (mode, text) in _FILES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
    (root / "var/log/recodex").mkdir(parents=True, exist_ok=True)


def _script(file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o755)


def _pack(root: Path, deb: Path) -> Path:
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", root, deb],
        check=True,
        capture_output=True,
        env={**os.environ, **FAST, "LC_ALL": "C"},
        timeout=60,
    )
    return deb
