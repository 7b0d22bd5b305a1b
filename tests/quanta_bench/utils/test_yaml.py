"""The fast parser says what PyYAML's plain one says, of every suite that is shipped."""

from __future__ import annotations

import pytest
import yaml

from quanta_bench.suites.loading import shipped
from quanta_bench.utils.yaml import parse_yaml


def test_suites_are_read_as_the_plain_parser_reads_them() -> None:
    for path in shipped().values():
        text = path.read_text(encoding="utf-8")
        assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "!!python/object/apply:os.getcwd []"])
def test_what_is_not_plain_yaml_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
