"""Read suites from their YAML files."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from quanta_bench.errors import UsageError, did_you_mean
from quanta_bench.plugins import find_task, is_registered
from quanta_bench.suites.inheritance import KEY, resolve
from quanta_bench.suites.schema import Profile, Suite
from quanta_bench.utils.settings import UNKNOWN_KEY, keys_at
from quanta_bench.utils.yaml import parse_yaml


def shipped() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    folder = Path(str(files("quanta_bench.suites")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_suite(name: str, kind: str = "", others: Collection[str] = ()) -> Suite:
    """A suite by its name (``table3``, ``figure4``) or by the path of a YAML file.

    Args:
        name: the name or path; a number alone means a suite of the kind.
        kind: ``table`` or ``figure``; empty for a table if a number is given, otherwise for any.
        others: names of the kind that are no suites, for the message that lists what is known.

    Raises:
        UsageError: there is no such suite or file, or its content is not a suite.
    """
    path = _path(name, kind, others)
    try:
        return Suite.model_validate(_content(path))
    except ValidationError as error:
        raise UsageError(f"{path}, {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """The first problem of a file, with its place; a misspelt key is why another one is missing."""
    found = sorted(error.errors(), key=lambda problem: problem["type"] != UNKNOWN_KEY)
    place, message = found[0]["loc"], f"{found[0]['msg']}."
    if found[0]["type"] == UNKNOWN_KEY:
        *inside, key = place
        known = keys_at(Suite, inside)
        inherited = {KEY} if inside[:1] == ["profiles"] else set()
        message = f"There is no such key. {did_you_mean(str(key), known | inherited)}"
    return f"at {'.'.join(map(str, place)) or 'the file'}: {message}"


def _path(name: str, kind: str = "", others: Collection[str] = ()) -> Path:
    known = shipped()
    path = known.get(name) or known.get(f"{kind or 'table'}{name}")
    if path is not None:
        return path
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        of_kind = [known_name for known_name in known if not kind or kind == _kind(known_name)]
        raise UsageError(
            f"There is no {kind or 'table'} {name!r}. "
            f"{did_you_mean(name, sorted([*of_kind, *others]))} "
            "A suite of your own is named by its path, ending in .yaml."
        )
    if not path.is_file():
        raise UsageError(f"There is no file {name}.")
    return path


def _kind(name: str) -> str:
    """Whether a shipped suite is a ``table`` or a ``figure``."""
    return load_suite(name).kind


def _content(path: Path, within: tuple[Path, ...] = ()) -> Any:
    """The content of a suite's file, with what it inherits from other suites filled in."""

    def other(name: str) -> Any:
        parent = _path(name)
        if parent in (*within, path):
            raise UsageError(f"{path} is like {parent}, which in the end is like it.")
        content = _content(parent, (*within, path))
        Suite.model_validate(content)
        return content

    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}.") from None
    return resolve(content, other)


def check_tasks(suite: Suite) -> None:
    """Refuse a suite with a task that is not registered.

    Raises:
        UsageError: one sentence that names every such task of a suite that is shipped; of a suite
            of the user's own the first, with the near names.
    """
    missing = absent_tasks(suite)
    if missing and suite.name in shipped():
        single = len(missing) == 1
        raise UsageError(
            f"{suite.name} cannot be computed yet: the {'task' if single else 'tasks'} "
            f"{', '.join(missing)} {'is' if single else 'are'} not available in this version."
        )
    for task in missing:
        find_task(task)


def absent_tasks(suite: Suite) -> list[str]:
    """The tasks that a suite trains or is scored on and that are not registered."""
    trained = [task for profile in suite.profiles.values() for task in _trained_on(profile)]
    own = [task for profile in suite.profiles.values() for task in profile.tasks]
    named = dict.fromkeys([*suite.tasks, *own, *trained])
    return [task for task in named if not is_registered(task)]


def _trained_on(profile: Profile) -> tuple[str, ...]:
    tasks = profile.training.get("tasks", ())
    # Anything but a list of names is refused when the training settings are validated.
    return tuple(task for task in tasks if isinstance(task, str)) if isinstance(tasks, list) else ()


def pick_profile(suite: Suite, name: str) -> Profile:
    """A suite's profile by name.

    Raises:
        UsageError: the suite has no such profile.
    """
    if name not in suite.profiles:
        raise UsageError(
            f"{suite.name} has no profile {name!r}. {did_you_mean(name, suite.profiles)}"
        )
    return suite.profiles[name]
