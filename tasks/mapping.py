"""A mapping: a YAML file that says how rows of any form become items, without Python.

``--task file:reviews.yaml``:

.. code-block:: yaml

    data: reviews.csv
    prompt: |-
      Review: {{ text }}
      Sentiment:
    choices: [negative, positive]
    answer: "{{ label }}"

Templates are Jinja's, in its sandbox; a name that a row does not have is an error. ``choices`` is a
list of templates or an expression that gives a list, such as ``options`` or ``choices.text``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from quanta_bench.rows import StrictModel, YAMLError, parse_yaml, problems, user_path
from quanta_bench.task import (
    HubRows,
    Location,
    Split,
    UsageError,
    UserRows,
    did_you_mean,
)
from tasks.metrics import CHOICE_METRICS, TEXT_METRICS, no_metric


class HubSet(StrictModel):
    """A data set on the hub.

    Attributes:
        hub: its name.
        config: its configuration, where it has several.
        revision: a branch, tag or commit.
        splits: the data set's split for each of train, validation and test.
    """

    hub: str = Field(min_length=1)
    config: str | None = None
    revision: str = "main"
    splits: dict[str, str] = Field(
        default={"train": "train", "validation": "validation", "test": "test"}, min_length=1
    )


class MappingFile(StrictModel):
    """The keys of a mapping.

    Attributes:
        data: a file of rows beside the mapping, a file for each split, or a data set on the hub.
        prompt: template of the text before the answer.
        choices: templates of the choices, or an expression that gives a list of them.
        answer: template of the right choice, its text or its index from 0.
        target: template of the answer to generate; a list, where several are accepted.
        metric: how answers are scored, a name of :mod:`tasks.metrics`.
        group: template of what near-twins share; they stay on one side of a split.
        split: template of ``train``, ``validation`` or ``test``, where the rows say so.
        title: the column heading in tables.
        chat_template: put prompts in the model's own chat template.
        max_new_tokens: bound on a generated answer, in tokens.
    """

    data: str | dict[str, Any]
    prompt: str = Field(min_length=1)
    choices: str | list[str] | None = None
    answer: str | None = None
    target: str | list[str] | None = None
    metric: str = "accuracy"
    group: str | None = None
    split: str | None = None
    title: str = ""
    chat_template: bool = False
    max_new_tokens: int | None = Field(default=None, ge=1)

    @field_validator("answer", mode="before")
    @classmethod
    def _index_as_text(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value

    @model_validator(mode="after")
    def _one_kind(self) -> MappingFile:
        if (self.choices is None) == (self.target is None):
            raise ValueError("give either choices and answer, or target")
        if (self.choices is None) != (self.answer is None):
            raise ValueError("choices and answer go together")
        known = TEXT_METRICS if self.choices is None else CHOICE_METRICS
        if self.metric not in known:
            raise ValueError(no_metric(self.metric, known))
        if self.metric != "accuracy" and isinstance(self.choices, str):
            raise ValueError(f"{self.metric} needs the same choices in every row: a list of them")
        return self


@dataclass(frozen=True)
class RowMapping:
    """A mapping that was read and checked.

    Attributes:
        path: the YAML file, as the user wrote it.
        file: its keys.
        parts: where rows are, and the split that they are; ``None`` where rows are yet to be split.
    """

    path: str
    file: MappingFile
    parts: tuple[tuple[Location, Split | None], ...]

    @property
    def chooses(self) -> bool:
        """Whether an item has choices."""
        return self.file.choices is not None

    @property
    def on_the_hub(self) -> bool:
        """Whether rows come from the run's source rather than from files beside the mapping."""
        return any(isinstance(location, HubRows) for location, _ in self.parts)

    @property
    def version(self) -> int:
        """A number that changes with the mapping, except with the name of its file of data."""
        keys = self.file.model_dump(mode="json", exclude={"data", "title"}, exclude_defaults=True)
        text = json.dumps(keys, sort_keys=True)
        return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)

    def item(self, row: Mapping[str, Any], place: str) -> dict[str, Any]:
        """A row in the form of a plain file: prompt, choices and answer, or prompt and answers.

        Raises:
            UsageError: a template cannot be filled from the row; names the place and the key.
        """
        file = self.file
        made: dict[str, Any] = {"prompt": self._text("prompt", file.prompt, row, place)}
        if file.choices is None:
            targets = file.target if isinstance(file.target, list) else [file.target or ""]
            made["answers"] = [self._text("target", text, row, place) for text in targets]
        elif isinstance(file.choices, list):
            made["choices"] = [self._text("choices", text, row, place) for text in file.choices]
        else:
            made["choices"] = self._value("choices", file.choices, row, place)
        for key in ("answer", "group", "split"):
            template = getattr(file, key)
            if template is not None:
                made[key] = self._text(key, template, row, place).strip()
        return made

    def score(self, answer: str, references: tuple[str, ...]) -> float:
        """A generated answer by the mapping's metric, in [0, 1]: the best of the references."""
        metric = TEXT_METRICS[self.file.metric]
        return max(metric(answer, reference) for reference in references)

    @cached_property
    def _compiled(self) -> dict[str, Callable[..., Any]]:
        return {}

    def _text(self, key: str, template: str, row: Mapping[str, Any], place: str) -> str:
        if template in row:
            raise UsageError(
                f"{self.path}: {key!r} is the plain word {template!r}, which is a column; for its "
                f'text write "{{{{ {template} }}}}", for the word itself '
                f"\"{{{{ '{template}' }}}}\"."
            )
        return str(self._fill(key, template, row, place, expression=False))

    def _value(self, key: str, expression: str, row: Mapping[str, Any], place: str) -> Any:
        inner = re.fullmatch(r"\s*\{\{(.*)\}\}\s*", expression, re.DOTALL)
        return self._fill(key, inner[1] if inner else expression, row, place, expression=True)

    def _fill(
        self, key: str, text: str, row: Mapping[str, Any], place: str, *, expression: bool
    ) -> Any:
        from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError

        try:
            if text not in self._compiled:
                self._compiled[text] = _compile(text, expression=expression)
            return self._compiled[text](row)
        except TemplateSyntaxError as error:
            raise UsageError(
                f"{self.path}: {key!r} is no template: {error.message}: {text!r}."
            ) from error
        except UndefinedError as error:
            name = re.match(r"'(\w+)' is undefined", str(error))
            near = f" {did_you_mean(name[1], row)}" if name else ""
            raise UsageError(
                f"{place}: the template of {key!r} in {self.path} cannot be filled: {error}.{near}"
            ) from error
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise UsageError(
                f"{place}: the template of {key!r} in {self.path} cannot be filled: {error}."
            ) from error


def _compile(text: str, *, expression: bool) -> Callable[..., Any]:
    from jinja2 import StrictUndefined, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    if not expression:
        parts = [part for node in environment.parse(text).body for part in _outputs(node)]
        if all(isinstance(part, nodes.TemplateData) for part in parts):
            # Rendering a choice that is the same in all rows takes most of the time of a file.
            plain = "".join(part.data for part in parts)
            return lambda row: plain
        return environment.from_string(text).render
    # An expression by itself gives a lazy undefined value, on which nothing fails.
    evaluate = environment.compile_expression(text, undefined_to_none=False)

    def value(row: Mapping[str, Any]) -> Any:
        found = evaluate(row)
        if isinstance(found, StrictUndefined):
            str(found)
        return list(found) if isinstance(found, tuple) else found

    return value


def _outputs(node: Any) -> list[Any]:
    """What a node of a template puts out; another kind of node is itself no plain text."""
    from jinja2 import nodes

    return node.nodes if isinstance(node, nodes.Output) else [node]


def read_mapping(path: str) -> RowMapping:
    """Read and check a mapping; its data are not read.

    Raises:
        UsageError: it is no YAML mapping, or a key is unknown, missing or refused.
    """
    file = user_path(path)
    try:
        values = parse_yaml(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} cannot be read as a mapping: {reason}.") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} is no mapping: it needs keys, such as data, prompt and target.")
    for key in values:
        if key not in MappingFile.model_fields:
            raise UsageError(
                f"{path} has an unknown key {key!r}. "
                f"{did_you_mean(str(key), MappingFile.model_fields)}"
            )
    try:
        checked = MappingFile.model_validate(values)
        return RowMapping(path, checked, tuple(_parts(checked.data, file.parent, path)))
    except ValidationError as error:
        raise UsageError(f"{path} is refused: {problems(error)}.") from None


def _parts(
    data: str | dict[str, Any], folder: Path, path: str
) -> list[tuple[Location, Split | None]]:
    """Where the rows of a mapping are."""

    def file(name: str) -> UserRows:
        return UserRows(str(folder / user_path(name)))

    if isinstance(data, str):
        return [(file(data), None)]
    splits = data
    if "hub" in data:
        hub = HubSet.model_validate(data)
        splits = hub.splits
    for name, value in splits.items():
        if name not in get_args(Split):
            known = (*get_args(Split), *(() if "hub" in data else ("hub",)))
            raise UsageError(
                f"{path}: 'data' has an unknown key {name!r}. {did_you_mean(str(name), known)}"
            )
        if not isinstance(value, str):
            raise UsageError(f"{path}: the {name} data are named by a text, not by {value!r}.")
    if not splits:
        raise UsageError(f"{path}: 'data' names no file.")

    def of_hub(name: str) -> HubRows:
        return HubRows(hub.hub, hub.config, name, hub.revision)

    locate = of_hub if "hub" in data else file
    return [(locate(splits[split]), split) for split in get_args(Split) if split in splits]
