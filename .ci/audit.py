"""Look up every release of constraints.txt in a database of vulnerabilities, by pip-audit.

An audit that learnt nothing must not pass, and pip-audit's does: releases that its service does not
know are skipped, and an empty answer is a clean one. So there has to be an answer on every release,
and a release with published vulnerabilities is looked up too, which have to be found.

Exit status: 0 if no release has a known vulnerability, 1 if one has, 2 if nothing can be said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

VULNERABLE = "django==2.0"
"""A release with many published vulnerabilities, by which the database is tried."""

DATABASE = "https://api.osv.dev/v1/query"
"""OSV holds the advisories of PyPI and of GitHub."""

VULNERABLE_STATUS, UNKNOWN_STATUS = 1, 2


class NoAnswerError(Exception):
    """The audit learnt nothing, or not on every release."""


def audit(requirements: Path, database: str, words: Sequence[str]) -> list[dict[str, Any]]:
    """The releases of a file of exact requirements, each with its vulnerabilities.

    Args:
        requirements: the file.
        database: URL of a service that answers as OSV does.
        words: further words for pip-audit.

    Raises:
        NoAnswerError: there is not an answer on every release, or the database does not know that
            `VULNERABLE` is.
    """
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder, "requirements.txt")
        known.write_text(f"{VULNERABLE}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit"]
        command += ["--requirement", str(known), "--requirement", str(requirements)]
        # Exact requirements: nothing is resolved, downloaded or installed.
        command += ["--no-deps", "--disable-pip", "--vulnerability-service", "osv"]
        command += ["--osv-url", database, "--format", "json", "--desc", "off"]
        command += ["--progress-spinner", "off", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        releases: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or ["pip-audit said nothing"]
        raise NoAnswerError(lines[-1][:300]) from None
    skipped = [release["skip_reason"] for release in releases if "skip_reason" in release]
    if skipped:
        raise NoAnswerError(f"{len(skipped)} releases were skipped, the first: {skipped[0]}")
    name = VULNERABLE.partition("==")[0]
    if not any(release["vulns"] for release in releases if release["name"] == name):
        raise NoAnswerError(f"it knows no vulnerability of {VULNERABLE}, which has many")
    return [release for release in releases if release["name"] != name]


def main() -> int:
    """Audit, say what was found, and return the exit status."""
    parser = argparse.ArgumentParser(
        description="Look up the releases of constraints.txt in a database of vulnerabilities.",
        epilog="Further options are those of pip-audit, such as --ignore-vuln ID.",
    )
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--database", default=DATABASE, help="URL of a service like OSV's")
    options, words = parser.parse_known_args()
    try:
        releases = audit(options.constraints, options.database, words)
        if not releases:
            raise NoAnswerError(f"{options.constraints} names no release")
    except NoAnswerError as error:
        sys.stderr.write(
            f"Nothing was audited: {str(error).rstrip('.')}. The audit needs an answer of "
            f"{options.database} on every release, and so a network that reaches it.\n"
        )
        return UNKNOWN_STATUS
    found = [release for release in releases if release["vulns"]]
    for release in found:
        for vulnerability in release["vulns"]:
            names = ", ".join([vulnerability["id"], *vulnerability.get("aliases", ())])
            fixed = ", ".join(vulnerability["fix_versions"]) or "no release"
            sys.stderr.write(
                f"{release['name']} {release['version']}: {names}; mended in {fixed}.\n"
            )
    print(f"{len(releases)} releases audited, {len(found)} with known vulnerabilities.")  # noqa: T201
    return VULNERABLE_STATUS if found else 0


if __name__ == "__main__":
    sys.exit(main())
