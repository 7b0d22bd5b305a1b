"""One bad input: the command that is given it, and the material that commands are made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from animals import write_data, write_suite
from tiny_models import save_llama


@dataclass(frozen=True)
class Case:
    """A command with a bad input.

    Attributes:
        name: what is bad, in words.
        words: the command, without the program's name.
        statuses: the exit statuses that are right: 2, or 1 where what is bad is a model.
    """

    name: str
    words: tuple[str, ...]
    statuses: tuple[int, ...] = (2,)


@dataclass(frozen=True)
class Material:
    """A good model, good data and a good suite, for cases to spoil one thing of.

    Attributes:
        root: a folder that cases may write to.
        model: a folder with a tiny model.
        data: rows of a user's own.
        suite: a suite over both.
    """

    root: Path
    model: Path
    data: Path
    suite: Path

    @classmethod
    def make(cls, root: Path) -> Material:
        """Write the material."""
        model = root / "model"
        save_llama(model)
        data = write_data(root)
        return cls(root, model, data, write_suite(root, data, model))

    def run(self, *words: str, method: str = "lora") -> tuple[str, ...]:
        """A ``run`` of the model on the data, with further words."""
        return (
            *("run", "--method", method, "--task", f"file:{self.data}"),
            *("--model", f"local:{self.model}", "--results", f"{self.root / 'results'}", *words),
        )

    def table(self, *words: str, suite: Path | None = None) -> tuple[str, ...]:
        """A ``table`` of the suite, or of another, with further words."""
        return ("table", f"{suite or self.suite}", "--results", f"{self.root / 'results'}", *words)

    def content(self) -> dict[str, Any]:
        """What the suite's file holds; a new object each time."""
        read: dict[str, Any] = yaml.safe_load(self.suite.read_text(encoding="utf-8"))
        return read

    def written(self, group: str, name: str, content: str | bytes) -> Path:
        """A file of its own for a case."""
        folder = self.root / group
        folder.mkdir(exist_ok=True)
        path = folder / name
        if isinstance(content, str):
            content = content.encode("utf-8", "surrogatepass")
        path.write_bytes(content)
        return path

    def model_copy(self, name: str) -> Path:
        """A copy of the model for a case to spoil."""
        folder = self.root / "models" / name
        shutil.copytree(self.model, folder)
        return folder


def edit_json(path: Path, changes: Mapping[str, Any]) -> None:
    """Change values of a JSON file; infinite numbers are written as Python writes them."""
    content = json.loads(path.read_text(encoding="utf-8")) | dict(changes)
    path.write_text(json.dumps(content), encoding="utf-8")


def bomb(levels: int = 9) -> str:
    """YAML of a few hundred bytes whose aliases stand for ten to the power of ``levels`` values."""
    parts = ["&l0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        parts.append(f"&l{level} [{', '.join([f'*l{level - 1}'] * 10)}]")
    return f"[{', '.join(parts)}]"
