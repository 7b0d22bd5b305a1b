"""Look up every release of the constraints in a database of vulnerabilities, by pip-audit.

constraints.txt is what is installed here and tested; constraints-lowest.txt has the lower bounds of
pyproject.toml, which a user may have installed.

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

FILES = ("constraints.txt", "constraints-lowest.txt")

VULNERABLE = "django==2.0"
"""A release with many published vulnerabilities, by which the database is tried."""

DATABASE = "https://api.osv.dev/v1/query"
"""OSV holds the advisories of PyPI and of GitHub."""

VULNERABLE_STATUS, UNKNOWN_STATUS = 1, 2


class NoAnswerError(Exception):
    """The audit learnt nothing, or not on every release."""


def audit(requirements: Sequence[str], database: str, words: Sequence[str]) -> list[dict[str, Any]]:
    """The releases of exact requirements, each with its vulnerabilities.

    Args:
        requirements: lines of a file of requirements.
        database: URL of a service that answers as OSV does.
        words: further words for pip-audit.

    Raises:
        NoAnswerError: there is not an answer on every release, or the database does not know that
            `VULNERABLE` is.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip_audit"]
        # A file each: one that names a release twice is refused.
        for name, lines in (("known", [VULNERABLE]), ("requirements", requirements)):
            path = Path(folder, f"{name}.txt")
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            command += ["--requirement", str(path)]
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
        description="Look up the releases of the constraints in a database of vulnerabilities.",
        epilog="Further options are those of pip-audit, such as --ignore-vuln ID.",
    )
    parser.add_argument(
        "--constraints", type=Path, nargs="+", default=[ROOT / name for name in FILES],
        help="files of exact releases",
    )  # fmt: skip
    parser.add_argument("--database", default=DATABASE, help="URL of a service like OSV's")
    options, words = parser.parse_known_args()
    releases: list[tuple[str, dict[str, Any]]] = []
    seen: set[str] = set()
    try:
        for file in options.constraints:
            lines = requirements_in(file)
            new = [line for line in lines if line not in seen]
            seen.update(lines)
            found = audit(new, options.database, words) if new else []
            releases += [(file.name, release) for release in found]
    except NoAnswerError as error:
        sys.stderr.write(
            f"Nothing was audited: {str(error).rstrip('.')}. The audit needs an answer of "
            f"{options.database} on every release, and so a network that reaches it.\n"
        )
        return UNKNOWN_STATUS
    vulnerable = [(file, release) for file, release in releases if release["vulns"]]
    for file, release in vulnerable:
        for vulnerability in release["vulns"]:
            names = ", ".join([vulnerability["id"], *vulnerability.get("aliases", ())])
            fixed = ", ".join(vulnerability["fix_versions"]) or "no release"
            sys.stderr.write(
                f"{file}: {release['name']} {release['version']}: {names}; mended in {fixed}.\n"
            )
    print(  # noqa: T201
        f"{len(releases)} releases audited, {len(vulnerable)} with known vulnerabilities."
    )
    return VULNERABLE_STATUS if vulnerable else 0


def requirements_in(file: Path) -> list[str]:
    """The lines of a file of requirements that are no comments.

    Raises:
        NoAnswerError: there are none.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise NoAnswerError(f"{file} cannot be read: {error}") from None
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise NoAnswerError(f"{file} names no release")
    return found


if __name__ == "__main__":
    sys.exit(main())
