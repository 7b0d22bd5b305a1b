"""``docs/architectures.md`` lists what ``quanta_bench/models/architectures.json`` holds.

After that file was written anew, ``python tests/quanta_bench/models/test_architectures_page.py``
renews the page's tables.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "architectures.md"
LIST = ROOT / "quanta_bench" / "models" / "architectures.json"
UNBUILT = "not built tiny: "

CONTENT: dict[str, Any] = json.loads(LIST.read_text("utf-8"))
MODES = ("joined", "batched", "one at a time", "no")


def held() -> str:
    groups = defaultdict(list)
    for name, found in CONTENT["architectures"].items():
        groups[found["generates"], found["cached"], found["packs"]].append(name)
    rows = ["| answers | cache | packed | architectures |", "|---|---|---|---|"]
    for mode, cached, packs in sorted(
        groups, key=lambda k: (MODES.index(k[0]), not k[1], not k[2])
    ):
        names = ", ".join(groups[mode, cached, packs])
        rows.append(f"| {mode} | {_yes(cached)} | {_yes(packs)} | {names} |")
    return "\n".join(rows)


def refused() -> str:
    groups = defaultdict(list)
    for name, reason in CONTENT["others"].items():
        if not reason.startswith(UNBUILT):
            groups[reason].append(name)
    rows = [f"| {', '.join(names)} | {reason} |" for reason, names in sorted(groups.items())]
    return "\n".join(["| architectures | reason |", "|---|---|", *rows])


def unchecked() -> str:
    names = (name for name, why in CONTENT["others"].items() if why.startswith(UNBUILT))
    return ", ".join(names) + "."


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def renewed(page: str) -> str:
    for name, text in (("held", held()), ("refused", refused()), ("unchecked", unchecked())):
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = block.subn(lambda found, text=text: f"{found[1]}\n{text}\n\n{found[2]}", page)
        assert count == 1, f"{PAGE.name} has {count} blocks {name!r}"
    return page


def test_the_page_has_the_tables_of_the_list() -> None:
    page = PAGE.read_text("utf-8")
    assert page == renewed(page)


def test_the_page_names_each_architecture_once_and_the_version() -> None:
    """By its text alone, whatever the tables look like."""
    page = PAGE.read_text("utf-8")
    assert f"`transformers` {CONTENT['transformers']} " in page
    blocks = "\n".join(re.findall(r"<!-- \w+ -->\n(.*?)<!-- end -->", page, re.DOTALL))
    words = re.findall(r"[\w-]+", blocks)
    for name in [*CONTENT["architectures"], *CONTENT["others"]]:
        assert words.count(name) == 1, name


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text("utf-8")), "utf-8")
