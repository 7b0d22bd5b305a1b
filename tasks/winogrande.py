"""WinoGrande (Sakaguchi et al. 2020, arXiv:1907.10641): which of two nouns fills the blank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quanta_bench.task import SavedRows
from tasks.commonsense import CommonsenseTask, Fields
from tasks.llm_adapters import Layout
from tasks.places import Place, Places, hub, local

BLANK = "_"


class WinoGrande(CommonsenseTask):
    """Choose the noun. Most sentences come in two versions with opposite answers."""

    name = "winogrande"
    title = "WinoG."
    grouped_by = "pair of nouns"
    layout = Layout(
        "Please choose the correct answer to fill in the blank to complete the given sentence: ",
        "option",
        2,
        ending=" ",
    )
    places = Places(
        embedded=Place(SavedRows("winogrande/winogrande_xl/validation")),
        hub=hub("allenai/winogrande", "winogrande_xl"),
        local=local("winogrande"),
    )

    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and correct choice of a row with sentence, option1, option2 and answer."""
        choices = (row["option1"], row["option2"])
        # Answers are 1-based; hidden ones are empty.
        return {**self.fields(row["sentence"]), "choices": choices}, int(row["answer"]) - 1

    def fields(self, statement: str) -> Fields:
        """The sentence, which must contain a blank."""
        if BLANK not in statement:
            raise ValueError(f"no blank in {statement!r}")
        return {"question": statement}

    def twin(self, fields: Fields) -> str:
        """The two nouns, sorted: both versions of a sentence share them and little else."""
        return " | ".join(sorted(choice.casefold() for choice in fields["choices"]))

    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """The context ends before the blank; a candidate is a noun plus the rest of the sentence.

        " Sarah" and "Sarah" are different tokens, so the space before the blank belongs to the
        candidate. At the start of a sentence or after a quotation mark there is no space.
        """
        before, _, rest = fields["question"].partition(BLANK)
        context = before.rstrip(" ")
        space = " " if context and context != before else ""
        return context, tuple(f"{space}{choice}{rest}" for choice in fields["choices"])
