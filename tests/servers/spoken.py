"""Debian's servers of mail, files, directories, keys and shells, each in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_port
from tests.servers.postgres import make_server
from tests.waiting import wait_for

__all__ = ["SERVERS", "Folder", "running"]


class Folder:
    """Where a server has its files, and a certificate; users of the system can read it."""

    def __init__(self, pem: bytes) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="recodex-server-"))
        self.path.chmod(0o755)
        self.port = free_port()
        self.pem = self.write("server.pem", pem.decode())
        self.pem.chmod(0o600)

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.write_text(text)
        return file

    def make(self, name: str) -> Path:
        made = self.path / name
        made.mkdir()
        return made


def redis(folder: Folder) -> list[str]:
    return ["redis-server", "--port", str(folder.port), "--bind", "127.0.0.1", "--save", ""]


def redis_tls(folder: Folder) -> list[str]:
    tls = ["--port", "0", "--tls-port", str(folder.port), "--tls-auth-clients", "no"]
    files = ["--tls-cert-file", str(folder.pem), "--tls-key-file", str(folder.pem)]
    trusted = ["--tls-ca-cert-file", str(folder.pem)]
    return ["redis-server", "--bind", "127.0.0.1", "--save", "", *tls, *files, *trusted]


def sshd(folder: Folder) -> list[str]:
    Path("/run/sshd").mkdir(exist_ok=True)
    key = folder.path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    options = ["-o", "ListenAddress=127.0.0.1", "-o", "UsePAM=no", "-o", "PidFile=none"]
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    return [sshd, "-D", "-e", "-f", "/dev/null", "-p", str(folder.port), "-h", str(key), *options]


def dovecot(protocol: str, folder: Folder) -> list[str]:
    config = folder.write(
        "dovecot.conf",
        f"""
        base_dir = {folder.make("run")}
        state_dir = {folder.make("state")}
        log_path = /dev/stderr
        protocols = {protocol}
        listen = 127.0.0.1
        ssl = yes
        ssl_cert = <{folder.pem}
        ssl_key = <{folder.pem}
        passdb {{
          driver = static
          args = nopassword=y
        }}
        userdb {{
          driver = static
          args = uid=65534 gid=65534 home={folder.path}
        }}
        service {protocol}-login {{
          inet_listener {protocol} {{
            port = {folder.port}
          }}
          inet_listener {protocol}s {{
            port = 0
          }}
        }}
        """,
    )
    return ["dovecot", "-F", "-c", str(config)]


def imap(folder: Folder) -> list[str]:
    return dovecot("imap", folder)


def pop3(folder: Folder) -> list[str]:
    return dovecot("pop3", folder)


def postfix(folder: Folder) -> list[str]:
    config = folder.make("postfix")
    services = Path("/usr/share/postfix/master.cf.dist").read_text().splitlines()
    lines = []
    for line in services:
        fields = line.split()
        if line[:1] in ("#", " ", "") or len(fields) < 8:
            continue
        if fields[:2] == ["smtp", "inet"]:
            fields[0] = f"127.0.0.1:{folder.port}"
        fields[4] = "n"  # none in a chroot
        lines.append(" ".join(fields))
    (config / "master.cf").write_text("\n".join(lines) + "\n")
    data = folder.make("data")
    shutil.chown(data, "postfix")
    (config / "main.cf").write_text(
        f"""compatibility_level = 3.6
queue_directory = {folder.make("spool")}
data_directory = {data}
myhostname = mail.test
mydestination =
inet_protocols = ipv4
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder.pem}
alias_maps =
smtpd_peername_lookup = no
maillog_file = /dev/stdout
"""
    )
    return ["postfix", "-c", str(config), "start-fg"]


def ftp(folder: Folder) -> list[str]:
    config = folder.write(
        "vsftpd.conf",
        f"""listen=YES
listen_address=127.0.0.1
listen_port={folder.port}
background=NO
anonymous_enable=YES
ssl_enable=YES
allow_anon_ssl=YES
rsa_cert_file={folder.pem}
rsa_private_key_file={folder.pem}
secure_chroot_dir={folder.make("empty")}
seccomp_sandbox=NO
""",
    )
    return ["vsftpd", str(config)]


def ldap(folder: Folder) -> list[str]:
    config = folder.write(
        "slapd.conf",
        f"""include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_ldif
pidfile {folder.path}/pid
TLSCertificateFile {folder.pem}
TLSCertificateKeyFile {folder.pem}
database ldif
suffix "dc=test"
directory {folder.make("data")}
""",
    )
    return ["slapd", "-f", str(config), "-h", f"ldap://127.0.0.1:{folder.port}/", "-d", "0"]


def bind9(folder: Folder) -> list[str]:
    zone = folder.write(
        "site.zone",
        """$TTL 60
@ IN SOA ns.site.test. root.site.test. 1 60 60 60 60
@ IN NS ns
ns IN A 192.0.2.53
@ IN A 192.0.2.1
@ IN MX 10 mail
_dmarc IN TXT "v=DMARC1; p=none"
""",
    )
    config = folder.write(
        "named.conf",
        f"""options {{
  directory "{folder.path}";
  listen-on port {folder.port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  recursion no;
  pid-file none;
  session-keyfile none;
}};
controls {{ }};
zone "site.test" {{ type primary; file "{zone}"; }};
""",
    )
    return ["named", "-g", "-c", str(config)]


# By name: the package, the program, and what starts it.
SERVERS = {
    "redis": ("redis-server", "redis-server", redis),
    "redis-tls": ("redis-server", "redis-server", redis_tls),
    "sshd": ("openssh-server", "sshd", sshd),
    "imap": ("dovecot-imapd", "dovecot", imap),
    "pop3": ("dovecot-pop3d", "dovecot", pop3),
    "smtp": ("postfix", "postfix", postfix),
    "ftp": ("vsftpd", "vsftpd", ftp),
    "ldap": ("slapd", "slapd", ldap),
    "dns": ("bind9", "named", bind9),
}


@contextlib.contextmanager
def running(name: str, pem: bytes) -> Iterator[int]:
    """Run a server, and give its port."""
    folder = Folder(pem)
    log = folder.path / "log"
    try:
        if name == "postgres":
            with _postgres(folder) as port:
                yield port
            return
        with log.open("wb") as file:
            process = subprocess.Popen(
                SERVERS[name][2](folder),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd=folder.path,
            )
        try:
            wait_for(lambda: _accepts(process, folder.port, log), f"{name} to accept connections")
            if name == "dns":
                # It listens before it has read its zones.
                wait_for(lambda: b"all zones loaded" in log.read_bytes(), "bind9's zones")
            yield folder.port
        finally:
            if name == "smtp":
                # Its master leaves the process group.
                stop = ["postfix", "-c", str(folder.path / "postfix"), "stop"]
                subprocess.run(stop, capture_output=True, timeout=30)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
    finally:
        shutil.rmtree(folder.path, ignore_errors=True)


def _accepts(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    if process.poll() is not None:
        raise AssertionError(f"ended with {process.returncode}: {log.read_text()[-1500:]}")
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def _postgres(folder: Folder) -> Iterator[int]:
    server = make_server(
        {"ssl": "on", "ssl_cert_file": str(folder.pem), "ssl_key_file": str(folder.pem)}
    )
    try:
        if os.geteuid() == 0:
            shutil.chown(folder.pem, "postgres")
        server.start()
        yield server.port
    finally:
        server.remove()
