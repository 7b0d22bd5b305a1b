"""YAML is read as PyYAML reads it, and never grows."""

from __future__ import annotations

import pytest
import yaml

from quanta_bench.suites.loading import shipped
from quanta_bench.utils.yaml import parse_yaml


def bomb(levels: int, head: str, repeat: str) -> str:
    """Aliases of aliases, nine of each level in the next."""
    lines = [f"x0: &x0 {head}"]
    for level in range(1, levels):
        lines.append(f"x{level}: &x{level} " + repeat.format(f"*x{level - 1}"))
    return "\n".join(lines)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_suites_are_read_as_pyyaml_reads_them(name: str) -> None:
    text = shipped()[name].read_text()
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text",
    [
        bomb(12, "[a, b]", "[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]"),
        bomb(12, "{a: 1}", "{{p: {0}, q: {0}, r: {0}, s: {0}, t: {0}, u: {0}, v: {0}}}"),
        bomb(12, "{a: 1}", "{{<<: [{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]}}"),
        "&a [*a]",
        "a: &a {<<: *a}",
        "[" * 5000 + "]" * 5000,
        "[" * 1_000_000,
        "- " * 100_000,
        "? " * 100_000,
        "{a: " * 100_000,
        "!!python/object/apply:os.system [x]",
        '"\\ud800"',
        "\ud800",
        "r: 4\nr: 8",
        "training: {epochs: 1, 'epochs': 2}",
        "- {a: {b: 1, c: 2, b: 1}}",
        "r: " + "1" * 5000,
        "r: 0x" + "f" * 5000,
        "r: !!int x",
        "r: !!float x",
        "day: 2020-13-45",
    ],
)
def test_what_would_grow_or_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)


def test_aliases_are_fine() -> None:
    assert parse_yaml("- &a {b: 1}\n- {<<: *a, c: 2}\n- *a") == [
        {"b": 1},
        {"b": 1, "c": 2},
        {"b": 1},
    ]
    assert parse_yaml("") is None
