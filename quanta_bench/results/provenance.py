"""The code that computed a result: declared versions, and a hash of the source behind each.

A plug-in's source is its own module and what that imports, directly or not, from the same top-level
package. It is hashed, for its author may be anyone. The suite declares `NUMBERS`, which a test
holds; the hash of its own source is stored beside it for the record. Comments, docstrings, blank
lines and trailing spaces do not count, so that a hash changes only where code does. It is the same
under every version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

from quanta_bench.plugins import METHODS, TASKS
from quanta_bench.results.records import CodeVersion, Result, TrainingRecord

NUMBERS = "0.1.0"
"""The version of the suite in which a number that a run computes last changed. Whoever changes one
raises it, and all stored results are stale; ``tests/quanta_bench/test_numbers.py`` fails before."""

SUITE = ("data", "evaluation", "models", "protocols", "training", "splits.py", "spec.py")
"""The packages whose hash is stored: those that a number passes through on its way to a record."""


def code_versions(method: str, tasks: Iterable[str]) -> dict[str, CodeVersion]:
    """The present versions of a method, of tasks and of the suite.

    Args:
        method: registered name of the method, or empty for none.
        tasks: tasks, as the command line names them.

    Returns:
        By ``method:NAME``, ``task:NAME`` and ``suite``; what is not registered is left out.
    """
    versions = {"suite": CodeVersion(version=NUMBERS, source=_suite_source())}
    for name, source in _plugin_sources(method, tasks).items():
        kind, _, plugin = name.partition(":")
        registered = METHODS.get(plugin) if kind == "method" else TASKS.get(plugin)
        versions[name] = CodeVersion(version=registered.version, source=source)
    return versions


def _plugin_sources(method: str, tasks: Iterable[str]) -> dict[str, str]:
    """The hashes of installed plug-ins, by the names of `code_versions`. Imports none of them."""
    sources = {}
    if method in METHODS:
        sources[f"method:{method}"] = source_hash(METHODS.module(method))
    for name in sorted({task.partition(":")[0] for task in tasks}):
        if name in TASKS:
            sources[f"task:{name}"] = source_hash(TASKS.module(name))
    return sources


def stale_training(record: TrainingRecord) -> list[str]:
    """What of a training's code has changed since, in words; empty where nothing has.

    A plug-in that is not installed cannot be compared and does not count.
    """
    return code_changes(record.code, record.spec.method, record.spec.tasks)


def stale(result: Result) -> list[str]:
    """What of the code of a result and of its training has changed since, in words."""
    changes = stale_training(result.training)
    changes += code_changes(result.code, "", [*result.tasks, *result.forgetting])
    return list(dict.fromkeys(changes))


def code_changes(code: Mapping[str, CodeVersion], method: str, tasks: Iterable[str]) -> list[str]:
    """What of recorded code has changed since, in words: the suite's numbers, a plug-in's source.

    Args:
        code: as :func:`code_versions` gave it.
        method: registered name of the method; empty for none.
        tasks: the tasks.
    """
    if not code:
        return ["its code was not recorded"]
    same_numbers = "suite" in code and code["suite"].version == NUMBERS
    changes = [] if same_numbers else ["the suite has changed"]
    for name, source in _plugin_sources(method, tasks).items():
        if name not in code or code[name].source != source:
            kind, _, plugin = name.partition(":")
            changes.append(f"the {kind} {plugin} has changed")
    return changes


@cache
def _suite_source() -> str:
    root = Path(__file__).parents[1]
    paths = [path for name in SUITE for path in _python_files(root / name)]
    return _hash({path.relative_to(root).as_posix(): path for path in paths})


def _python_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


@cache
def source_hash(module: str) -> str:
    """sha256 over a module and all that it imports from its own top-level package.

    Nothing is imported for it.

    Args:
        module: a module's full name. One without source, such as one typed into an interpreter,
            has the hash of nothing.
    """
    package = module.partition(".")[0]
    waiting, files = [module], dict[str, Path]()
    while waiting:
        name = waiting.pop()
        if name in files or name.partition(".")[0] != package or (path := _file(name)) is None:
            continue
        files[name] = path
        waiting += [*_imports(path, name), name.rpartition(".")[0]]
    return _hash(files)


def _file(module: str) -> Path | None:
    """The source file of a module; ``None`` where there is none, as for a name in a module."""
    package, *parts = module.split(".")
    spec = _top_level(package)
    if spec is None or (spec.submodule_search_locations is None and parts):
        return None
    roots = map(Path, spec.submodule_search_locations or ())
    files = [path for root in roots for path in _candidates(root.joinpath(*parts), bool(parts))]
    if not parts and spec.origin:
        files.append(Path(spec.origin))
    return next((path for path in files if path.suffix == ".py" and path.is_file()), None)


def _candidates(path: Path, inside: bool) -> list[Path]:
    return [path / "__init__.py", *([path.with_name(f"{path.name}.py")] if inside else [])]


@cache
def _top_level(package: str) -> ModuleSpec | None:
    try:
        return find_spec(package)
    except (ImportError, ValueError):
        return None


@cache
def _imports(path: Path, module: str) -> Sequence[str]:
    """Modules that a file may import: whatever an import names, and that inside its source."""
    parent = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parent
            for _ in range(node.level - 1):
                base = base.rpartition(".")[0]
            source = ".".join(filter(None, (base if node.level else "", node.module)))
            names += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return names


def _hash(files: Mapping[str, Path]) -> str:
    lines = [f"{name}\0{_bare_hash(files[name])}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def _bare_hash(path: Path) -> str:
    return hashlib.sha256(bare_source(path.read_text(encoding="utf-8")).encode()).hexdigest()


def bare_source(text: str) -> str:
    """Python source without comments, docstrings, blank lines and trailing spaces."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for statement in node.body:
            # Also the strings that stand below an attribute to describe it.
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
                and statement.end_lineno is not None
            ):
                for row in range(statement.lineno - 1, statement.end_lineno):
                    lines[row] = ""
    return "\n".join(kept for line in lines if (kept := line.rstrip()))
