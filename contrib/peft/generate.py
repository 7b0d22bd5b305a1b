"""Write the file of `peft`'s QuanTA that is this project's own code: how axis sizes are chosen.

    python contrib/peft/generate.py

The definitions are taken from `baselines/quanta` as they stand there, with the names, the types and
the layout that `peft` has. A test generates them anew and compares.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
QUANTA = HERE.parents[1] / "baselines" / "quanta"
TARGET = HERE / "src" / "peft" / "tuners" / "quanta" / "dims.py"
LINE_LENGTH = 119

TAKEN = {
    "dims.py": None,  # every definition
    "rectangular.py": ("fit_circuit", "_nearest_dims", "_ordered_splits"),
    "config.py": ("_checked_pattern", "_checked_dims"),
}
"""By the file: the definitions to take."""

RENAMED = {
    "_checked_pattern": "check_pattern",
    "_checked_dims": "check_dims",
    "Dims": "tuple[int, ...] | None",
    "Rectangular": 'Literal["gate", "pad"]',
}
"""By the name here: the name there, or the type itself where `peft` has no alias."""

IMPORTS = """
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

from .circuit import Circuit, WeightCircuit

"""


def generated() -> str:
    """The text of the file.

    Raises:
        LookupError: A definition is no longer where it was.
        subprocess.CalledProcessError: ruff cannot format the text.
    """
    licence = (HERE / "src/peft/tuners/quanta/__init__.py").read_text(encoding="utf-8")
    header = licence.partition("\n\n")[0]
    docstring = ast.get_docstring(ast.parse((QUANTA / "dims.py").read_text(encoding="utf-8")))
    parts = [part for name, wanted in TAKEN.items() for part in _definitions(name, wanted)]
    text = f'{header}\n\n"""{docstring}\n"""\n{IMPORTS}\n' + "\n\n\n".join(parts) + "\n"
    for name, other in RENAMED.items():
        text = re.sub(rf"\b{name}\b", other, text)
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "-"]
    command += ["--line-length", str(LINE_LENGTH), "--stdin-filename", TARGET.name]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout


def _definitions(name: str, wanted: tuple[str, ...] | None) -> Iterator[str]:
    """The source of a file's definitions, each with its decorators."""
    text = (QUANTA / name).read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            label = ast.unparse(node.targets[0])
            first = node.lineno
        elif isinstance(node, ast.FunctionDef):
            label = node.name
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        else:
            continue
        found[label] = "\n".join(lines[first - 1 : node.end_lineno])
    for label in found if wanted is None else wanted:
        if label not in found:
            raise LookupError(f"{name} no longer defines {label}")
        yield found[label]


if __name__ == "__main__":
    TARGET.write_text(generated(), encoding="utf-8")
