"""YAML by PyYAML's parser in C where the build has it, and only as large as it is written."""

from __future__ import annotations

from typing import Any

import yaml

# PyYAML's own parser in C takes a tenth of the time; some builds lack it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

INTEGER = "tag:yaml.org,2002:int"
MOST_DIGITS = 40
"""Of an integer; Python refuses to print, or to read, one of some thousands."""

DEEPEST = 100
"""Most collections within each other; PyYAML's parser in C ends the process at some thousands."""

LARGEST = 200_000
"""Most values of a document, those that aliases repeat counted each time."""


def parse_yaml(text: str) -> Any:
    """Parse a YAML text into plain values.

    Raises:
        yaml.YAMLError: it is not YAML, nested too deeply, larger than `LARGEST` with its aliases
            written out, repeats a key of a mapping, or contains an invalid number or date or an
            unpaired surrogate, which is not valid Unicode.
    """
    try:
        _check_depth(text)
        loader = _LOADER(text)  # a safe loader either way
    except UnicodeEncodeError:
        raise yaml.YAMLError("it contains half of a surrogate pair") from None
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        # Before anything is built: aliases of aliases grow exponentially where they are written
        # out, as merging keys, hashing and JSON do.
        _check_size(node, {})
        return loader.construct_document(node)
    except (ValueError, OverflowError) as error:
        # PyYAML passes on the errors of int(), float() and datetime.
        raise yaml.YAMLError(f"a value is not what it looks like ({error})") from None
    finally:
        loader.dispose()


def _check_depth(text: str) -> None:
    """Refuse a text whose collections are nested too deeply, before anything recurses into them."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for."""
    key = id(node)
    if key in sizes:
        if sizes[key] == 0:
            raise yaml.YAMLError("an alias refers to what it is part of")
        return sizes[key]
    sizes[key] = 0  # until it is counted
    size = 1
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise yaml.YAMLError("it contains an unpaired surrogate, which is not valid Unicode")
        if node.tag == INTEGER and len(node.value) > MOST_DIGITS:
            raise yaml.YAMLError(f"an integer has more than {MOST_DIGITS} digits")
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node)
        size += sum(_check_size(part, sizes) for pair in node.value for part in pair)
    else:
        size += sum(_check_size(part, sizes) for part in node.value)
    if size > LARGEST:
        raise yaml.YAMLError(f"its aliases stand for more than {LARGEST:,} values")
    sizes[key] = size
    return size


def _check_keys(node: yaml.MappingNode) -> None:
    """Refuse a key that appears twice: of two values for it PyYAML keeps the last."""
    names = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for number, (tag, name) in enumerate(names):
        if (tag, name) in names[:number]:
            raise yaml.YAMLError(f"the key {name!r} appears twice in one mapping")
