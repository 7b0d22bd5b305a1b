"""The audit of dependencies, by the real pip-audit, with a server of ours as the database."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from paths import ROOT

AUDIT = ROOT / ".ci" / "audit.py"
CLEAN = "numpy==2.0.0\nrich==14.3\n"

Answer = Callable[[str, str], tuple[int, bytes]]
"""Status and body of the answer on a package and its version."""

Audit = Callable[..., subprocess.CompletedProcess[str]]
"""Audits with a database's answers, the lines of a file of releases and further words."""


def advisory(package: str, identifier: str, fixed: str) -> bytes:
    """An answer of OSV: one vulnerability (https://ossf.github.io/osv-schema/)."""
    affected = {
        "package": {"name": package, "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
    }
    one = {"id": identifier, "aliases": [], "summary": "s", "details": "d", "affected": [affected]}
    return json.dumps({"vulns": [one]}).encode()


def database(package: str, version: str) -> tuple[int, bytes]:
    """Knows the release that tries it, and a vulnerability of PyYAML 5.3."""
    if (package, version) == ("django", "2.0"):
        return 200, advisory("django", "PYSEC-2019-1", "2.0.1")
    if (package, version) == ("pyyaml", "5.3"):
        return 200, advisory("pyyaml", "PYSEC-2020-96", "5.3.1")
    return 200, b"{}"


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """The URL of a server that gives these answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer(query["package"]["name"], query["version"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    def run(
        answer: Answer, releases: str = CLEAN, *words: str, lowest: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "constraints.txt").write_text(releases)
        if lowest is not None:
            (tmp_path / "constraints-lowest.txt").write_text(lowest)
        with served(answer) as url:
            return audited(tmp_path, url, *words)

    return run


def audited(folder: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    files = sorted(folder.glob("constraints*.txt"), reverse=True)
    command = [sys.executable, AUDIT, "--constraints", *files]
    return subprocess.run(
        [*map(str, command), "--database", url, *words], capture_output=True, text=True, check=False
    )


def test_releases_without_vulnerabilities_pass(audit: Audit) -> None:
    done = audit(database)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 releases audited, 0 with known vulnerabilities.\n"


def test_a_vulnerable_release_fails_and_is_named(audit: Audit) -> None:
    done = audit(database, f"{CLEAN}pyyaml==5.3\n")
    assert done.returncode == 1
    assert done.stderr == "constraints.txt: pyyaml 5.3: PYSEC-2020-96; mended in 5.3.1.\n"
    done = audit(database, f"{CLEAN}pyyaml==5.3\n", "--ignore-vuln", "PYSEC-2020-96")
    assert done.returncode == 0


def test_a_lower_bound_is_audited_too(audit: Audit) -> None:
    """Once where both files have a release, and once each where they have two of a package."""
    asked: list[tuple[str, str]] = []

    def answer(package: str, version: str) -> tuple[int, bytes]:
        asked.append((package, version))
        return database(package, version)

    done = audit(answer, f"{CLEAN}pyyaml==6.0\n", lowest="numpy==1.9\nrich==14.3\npyyaml==5.3\n")
    assert done.returncode == 1
    assert done.stderr == "constraints-lowest.txt: pyyaml 5.3: PYSEC-2020-96; mended in 5.3.1.\n"
    assert done.stdout == "5 releases audited, 1 with known vulnerabilities.\n"
    counts = {one: asked.count(one) for one in asked if one[0] != "django"}
    assert counts == {
        ("numpy", "2.0.0"): 1,
        ("rich", "14.3"): 1,
        ("pyyaml", "6.0"): 1,
        ("numpy", "1.9"): 1,
        ("pyyaml", "5.3"): 1,
    }
    assert audit(database, CLEAN, lowest=CLEAN).returncode == 0
    assert audit(database, CLEAN, lowest="# none\n").returncode == 2


def broken_midway(package: str, version: str) -> tuple[int, bytes]:
    return database(package, version) if package != "rich" else (503, b"")


@pytest.mark.parametrize(
    "answer",
    [
        lambda package, version: (200, b"{}"),
        lambda package, version: (404, b""),
        lambda package, version: (200, b"<html>Log in to this network</html>"),
        broken_midway,
    ],
    ids=["knows nothing", "not found", "another page", "stops"],
)
def test_a_database_that_does_not_answer_is_no_clean_audit(audit: Audit, answer: Answer) -> None:
    done = audit(answer)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Nothing was audited: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_a_network_it_fails_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text(CLEAN)
    with served(database) as url:
        pass  # closed again, so that nothing listens there
    done = audited(tmp_path, url)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("releases", ["# none\n", "numpy>=2\n"])
def test_a_file_without_exact_releases_is_no_clean_audit(audit: Audit, releases: str) -> None:
    done = audit(database, releases)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-lowest.txt"])
def test_every_requirement_of_the_project_is_an_exact_release(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    releases = [line for line in lines if line and not line.startswith("#")]
    assert len(releases) > 100
    assert all(line.count("==") == 1 and ";" not in line for line in releases)
