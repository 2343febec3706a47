"""The commands in the pages that no test runs where they stand, and why that is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["NEEDS_A_CLUSTER", "NOT_IN_A_CHECKOUT", "UNRUN_PAGES", "UNRUN_TOOLS"]


def _nothing() -> None:
    """Stand in for a command that is not run here."""


# pattern -> what is done instead; each has its reason above it.
NOT_IN_A_CHECKOUT: Mapping[str, Callable[[], object]] = {
    # It is what runs this.
    r"make test": _nothing,
    # They change the machine that they run on; docs/deploy/debian.md has them run in one.
    r"apt install recodex-monitor .*": _nothing,
    r"systemctl start recodex-monitor": _nothing,
}

# There is no cluster in a test. What kubectl changes is played on the tests' Kubernetes API
# as the controllers would; the manifest that is applied is checked by tests/cluster/test_rights.py.
NEEDS_A_CLUSTER: Mapping[str, Callable[[], object]] = {
    r"(kubectl|oc) apply -f .*": _nothing,
}

# Programs that need what no test has: a cluster, a container engine. What they are given is
# checked instead: tests/packaging validates the manifests against Kubernetes' schemas.
UNRUN_TOOLS = r"(kubectl|oc|buildah|podman|docker) .*"

# Pages whose commands nothing runs as written: pattern -> what shows them to be right.
UNRUN_PAGES: Mapping[str, Mapping[str, str]] = {
    "docs/reference/probes.md": {
        "curl -fsS .*https://monitor.example.org/heartbeat/KEY.*": "tests/probes report by HTTP",
    },
    "docs/how-to/prometheus.md": {
        r"install -m 0640 -g prometheus .*": "the group comes with Debian's prometheus",
        r"recodex-monitor token create prometheus .*": "the page of the first token runs one",
        r"promtool check rules .*": "tests/web/test_prometheus.py runs it",
    },
    "docs/deploy/relays.md": {
        r"(systemctl restart|journalctl -u) recodex-monitor.*": "tests/relay/test_sharing.py",
    },
    "CONTRIBUTING.md": {
        r"make (install|fast|check)": "CI runs them: fast is a part of test",
    },
    # Tags, uploads and another machine are not for a test.
    "docs/release.md": {
        r"make (check|test|bench|screenshots)": "CI runs the first two, a person all of them",
        r"git (tag|push) .*": "they publish",
        r"make (deb|rpm)": "make repo makes both",
        r"sha256sum dist/\*\.deb dist/\*\.rpm": "tests/distro/test_build.py compares two builds",
        r"\.venv/bin/python -m (pip install build twine|build)": "they need an index",
        r"make audit": "it needs pypi.org",
        r"\.venv/bin/python -m twine check .*": "it needs an index",
        r"make repo REPO_KEY=\S+ REPO_URL=\S+": "tests/servers/packages.py",
        r"systemctl status recodex-monitor": "docs/deploy/debian.md runs it",
        r"recodex-monitor --version": "tests/commands/test_main.py runs it",
    },
    "docs/how-to/backup.md": {r".*": "tests/docs/test_restore.py runs it"},
    "docs/how-to/restore.md": {r".*": "tests/docs/test_restore.py runs it"},
    "docs/how-to/moving.md": {
        r"recodex-monitor configure-database .* --copy-from .*": "tests/store/test_copying.py",
        r"recodex-monitor configure-database .*": "tests/commands/test_earlier_sites.py runs it",
    },
    # There is no Fedora or RHEL in a test.
    "docs/deploy/fedora.md": {
        r"curl -fsSLo /etc/yum\.repos\.d/recodex-monitor\.repo \S+/yum/recodex-monitor\.repo": (
            "tests/distro/test_rpm.py: the repository has that file, and is signed"
        ),
        r"yum install recodex-monitor": "tests/distro/test_rpm.py: rpm itself installs and runs it",
        r"systemctl enable --now recodex-monitor": "docs/deploy/source.md runs it",
        r'packaging/build-rpm --define "rhel 9" --define "dist \.el9"': (
            "tests/distro/test_build.py runs it"
        ),
    },
    # They take as long as all of docs/deploy together, and tests/servers/packages.py runs them
    # for whatever installs a package.
    "docs/deploy/packages.md": {
        r"make (deb|rpm)": "make repo makes both",
        r"make repo REPO_KEY=\S+ REPO_URL=\S+": "tests/servers/packages.py",
    },
    # buildah takes a minute, for the image that tests/distro/test_container.py makes and runs.
    "docs/deploy/container.md": {
        r"make deb": "tests/distro/test_build.py runs it",
        r"buildah build --tag recodex-monitor --file packaging/container/Containerfile \.": (
            "tests/distro/test_container.py builds with it"
        ),
        r"podman run --read-only .* recodex-monitor": (
            "tests/distro/test_container.py: systemd-nspawn runs the image like that"
        ),
    },
    # There is no cluster in a test: tests/packaging/test_kubernetes.py checks what is
    # applied, tests/end_to_end/test_kubernetes.py runs it as processes.
    "docs/deploy/kubernetes.md": {
        r"mkdir secrets": "tests/packaging/test_kubernetes.py does it",
        r"printf %s PASSWORD >secrets/database-password": "tests/packaging/test_kubernetes.py",
        r"CREDENTIALS_DIRECTORY=\$PWD/secrets recodex-monitor token create .*": (
            "tests/packaging/test_kubernetes.py runs it"
        ),
        r"kubectl create namespace monitoring": "it is in packaging/kubernetes/namespace.yaml",
        r"kubectl -n monitoring create secret generic recodex-monitor --from-file=secrets/": (
            "tests/packaging/test_kubernetes.py: all pods mount a secret of that name"
        ),
        r"kubectl apply -k \.": "tests/packaging/test_kubernetes.py: what it applies is valid",
        r"kubectl -n monitoring port-forward service/recodex-monitor-web 9000": (
            "tests/packaging/test_kubernetes.py: the service has that port"
        ),
        r"RECODEX_MONITOR_TOKEN=TOKEN recodex-monitor job list --api \S+": (
            "tests/commands/test_job.py runs it"
        ),
        r"kubectl -n monitoring exec \S+ -- recodex-monitor producers-needed -c \S+": (
            "tests/end_to_end/test_kubernetes.py runs it with the pod's config"
        ),
        r"kubectl -n monitoring scale statefulset recodex-monitor-producer --replicas=N": (
            "tests/probes/test_sharding.py: any number of producers is right"
        ),
        r"kubectl -n monitoring delete job recodex-monitor-database --ignore-not-found": (
            "tests/packaging/test_kubernetes.py: the job has that name"
        ),
    },
    # tests/cluster_real/test_helm.py does it with a real API server, if one was built.
    "docs/deploy/helm.md": {
        r"mkdir secrets": "tests/packaging/test_kubernetes.py does it",
        r"printf %s PASSWORD >secrets/database-password": "tests/packaging/test_kubernetes.py",
        r"CREDENTIALS_DIRECTORY=\$PWD/secrets recodex-monitor token create .*": (
            "tests/packaging/test_kubernetes.py runs it"
        ),
        r"kubectl (create|label) namespace monitoring.*": (
            "tests/cluster_real/test_helm.py has one like it"
        ),
        r"kubectl -n monitoring create secret generic recodex-monitor --from-file=secrets/": (
            "tests/packaging/test_kubernetes.py: all pods mount a secret of that name"
        ),
        r"helm (install|upgrade) recodex-monitor packaging/helm --namespace monitoring .*": (
            "tests/cluster_real/test_helm.py runs it"
        ),
        r"helm rollback recodex-monitor --namespace monitoring": (
            "tests/cluster_real/test_helm.py runs it"
        ),
    },
    # Its receivers are other people's; tests/alerts has real ones.
    "docs/how-to/alerts.md": {
        r"install -m 0640 -o root -g recodex /dev/null \S+": "an empty file",
        r"recodex-monitor check-config -c \S+": "docs/how-to/probes.md runs it",
        r"systemctl restart recodex-monitor": "docs/how-to/probes.md runs it",
        r"recodex-monitor alerts (test|list|acknowledge|silence) .*": (
            "tests/alerts/test_daemon.py runs them"
        ),
    },
    "docs/deploy/openshift.md": {
        r"oc apply -k packaging/openshift": "tests/packaging/test_kubernetes.py: it is valid",
    },
}
