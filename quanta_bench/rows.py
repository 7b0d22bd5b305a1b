"""Read rows from a file of any format, JSON and YAML, and check what a user wrote in them.

A task plug-in may import this module beside :mod:`quanta_bench.task`.
"""

from __future__ import annotations

from yaml import YAMLError

from quanta_bench.utils.folders import user_path
from quanta_bench.utils.json_text import parse_json
from quanta_bench.utils.row_files import TEXT_TABLES, Rows, read_rows
from quanta_bench.utils.settings import StrictModel, problems
from quanta_bench.utils.yaml import parse_yaml

__all__ = [
    "TEXT_TABLES",
    "Rows",
    "StrictModel",
    "YAMLError",
    "parse_json",
    "parse_yaml",
    "problems",
    "read_rows",
    "user_path",
]
