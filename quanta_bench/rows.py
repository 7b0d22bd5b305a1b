"""Read rows from a file of any format, and JSON from any text: for tasks on a user's own files.

A task plug-in may import this module beside :mod:`quanta_bench.task`.
"""

from __future__ import annotations

from quanta_bench.utils.folders import user_path
from quanta_bench.utils.json_text import parse_json
from quanta_bench.utils.row_files import TEXT_TABLES, Rows, read_rows

__all__ = ["TEXT_TABLES", "Rows", "parse_json", "read_rows", "user_path"]
