"""YAML by the fastest parser that is there."""

from __future__ import annotations

from typing import Any

import yaml

# PyYAML's own parser in C takes a tenth of the time; some builds lack it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str) -> Any:
    """What a text of YAML says, in plain values.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, Loader=_LOADER)  # a safe loader either way
