"""QuanTA as a method of the suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from baselines.peft_method import PeftMethod
from quanta_bench.method import MethodConfig, Row, UsageError

if TYPE_CHECKING:
    from peft import PeftConfig

Axes: TypeAlias = tuple[int, ...] | None
Names: TypeAlias = tuple[str, ...] | str

PAPER = "QuanTA paper, Table E.3"
PUBLIC = "the parameter counts of the paper's public code, which pads"


class QuantaSettings(MethodConfig):
    """Settings of QuanTA: those of `QuantaConfig`, which documents each, but for the seed.

    Attributes:
        dims: sizes of the axes into which a layer's width is split, such as ``(9, 8, 8)`` for 576;
            by module if a dictionary from regular expressions; chosen if ``None``.
        parameter_budget: most parameters for one layer, where sizes are chosen.
        target_modules: names of the modules to adapt, a regular expression for their full names,
            or ``"all-linear"``.
        exclude_modules: names, or a regular expression, of modules to leave out.
        layers_to_transform: indices of the layers to adapt; all by default.
        layers_pattern: name of the list that these indices refer to.
        modules_to_save: modules to train in full and save with the adapter.
        rectangular: how a layer of unequal widths is fitted: ``"gate"`` or ``"pad"``.
        form: ``"folded"`` keeps W0 - S as a second matrix, ``"unfolded"`` applies S each time,
            ``"auto"`` folds on a float32 base.
        fold_in_place: keep W0 - S in the place of W0 instead of beside it.
        dropout: probability of dropout on the adapter's input.
    """

    dims: Axes | dict[str, Axes] = None
    parameter_budget: int | None = Field(None, ge=1)
    target_modules: Names = Field(("q_proj", "v_proj"), min_length=1)
    exclude_modules: Names | None = None
    layers_to_transform: tuple[int, ...] | int | None = None
    layers_pattern: Names | None = None
    modules_to_save: tuple[str, ...] | None = None
    rectangular: Literal["gate", "pad"] = "gate"
    form: Literal["auto", "folded", "unfolded"] = "auto"
    fold_in_place: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)


class Quanta(PeftMethod[QuantaSettings]):
    """QuanTA: y = W0 x + T x - S x, T a product of gates, each on two axes of the hidden space.

    S is a frozen copy of T's start, so the adapted model starts as the base.
    """

    name = "quanta"
    title = "QuanTA"
    Config = QuantaSettings
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "QuanTA 6-6-4-4",
            config={"dims": (6, 6, 4, 4), "target_modules": ("q_proj", "v_proj")},
            training={"learning_rate": 3e-3},
            origin={
                "learning_rate": "compared on validation items, see results/study/rates",
                "dims": "our choice",
            },
        ),
        "paper": Row(
            "QuanTA 16-8-8-4",
            config={
                "dims": (16, 8, 8, 4),
                "target_modules": ("q_proj", "v_proj"),
                "rectangular": "pad",
            },
            training={"learning_rate": 5e-5},
            origin={
                **dict.fromkeys(("dims", "target_modules", "learning_rate", "dropout"), PAPER),
                "rectangular": PUBLIC,
            },
        ),
    }
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
    }
    source = "Chen et al. 2024, arXiv:2406.00132, Eq. 4 to 8."

    def peft_config(self, seed: int) -> PeftConfig:
        """A `QuantaConfig`; the gates start from the seed alone."""
        from baselines.quanta import QuantaConfig

        settings: dict[str, Any] = {
            # `peft` tells a list of names from a single one by the type list.
            key: list(value) if isinstance(value, tuple) and key != "dims" else value
            for key, value in dict(self.config).items()
        }
        try:
            return QuantaConfig(**settings, seed=seed)
        except ValueError as error:
            raise UsageError(str(error)) from error
