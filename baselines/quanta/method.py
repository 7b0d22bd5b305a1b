"""QuanTA as a method of the suite."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from baselines.origins import COMPARED, OURS
from baselines.quanta.config import QuantaConfig
from baselines.quanta.dims import MAX_AXES, MIN_AXES
from baselines.quanta.layer import QuantaLinear
from baselines.tuners.frozen import frozen
from baselines.tuners.merging import linear_features
from baselines.tuners.method import TunerMethod
from baselines.tuners.settings import QUERY_AND_VALUE, settings_class
from quanta_bench.method import Row

if TYPE_CHECKING:
    from torch import nn

PAPER = "QuanTA paper, Table E.3"
PUBLIC = "the parameter counts of the paper's public code, which pads"


class Quanta(TunerMethod):
    """QuanTA: y = W0 x + T x - S x, T a product of gates, each on two axes of the hidden space.

    S is a frozen copy of the initial T, so the adapted model starts as the base model.
    """

    name = "quanta"
    tuner_config = QuantaConfig
    title = "QuanTA"
    Config = settings_class(QuantaConfig)
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "QuanTA 6-6-4-4",
            config={"dims": (6, 6, 4, 4), "target_modules": ("q_proj", "v_proj")},
            training={"learning_rate": 1e-2},
            origin={
                "learning_rate": COMPARED,
                "dims": OURS,
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
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {"learning_rate": (1e-3, 3e-3, 1e-2, 3e-2)}
    source = "Chen et al. 2024, arXiv:2406.00132, Eq. 4 to 8."

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """All splits of the target modules' width into 3 to 5 axes, as in the paper.

        If the rectangular gate does not fit all modules, the splits are of the largest width, with
        padding.
        """
        shapes = set(_target_shapes(model))
        if not shapes:
            yield {}
            return
        width = max(map(max, shapes))
        gates = all(max(shape) == width and width % min(shape) == 0 for shape in shapes)
        factor = math.lcm(*(width // min(shape) for shape in shapes)) if gates else 1
        sizes = [size for size in range(width // 2, 1, -1) if width % size == 0]
        for axes in range(MIN_AXES, MAX_AXES + 1):
            for dims in itertools.combinations_with_replacement(sizes, axes):
                first = next((size for size in dims if size % factor == 0), None)
                if math.prod(dims) != width or first is None:
                    continue
                # The rectangular gate is on the first axis.
                rest = list(dims)
                rest.remove(first)
                settings: dict[str, Any] = {"dims": (first, *rest)}
                yield settings if gates else {**settings, "rectangular": "pad"}

    def frozen(self, model: nn.Module) -> AbstractContextManager[None]:
        """A block in which no weight changes, for fast scoring and generation."""
        return frozen(model)

    def ranks(self, model: nn.Module) -> dict[str, dict[str, tuple[int, int]]]:
        """Bounds on the rank of T (Theorem 6.2) and of the update T - S.

        The theorem bounds only T. The update is 0 initially; its rank is at most
        rank(T) + rank(S), and at most the layer's smaller width.
        """
        bounds = {}
        for name, module in model.named_modules():
            if isinstance(module, QuantaLinear):
                for adapter in set(module.active_adapters) & set(module.quanta_circuits):
                    least, most = module.quanta_circuits[adapter].rank_bounds()
                    shape = (module.in_features, module.out_features)
                    bounds[name] = {"T": (least, most), "update": (0, min(2 * most, *shape))}
        return bounds


def _target_shapes(model: nn.Module) -> Iterator[tuple[int, int]]:
    """Input and output width of each module adapted by default."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in QUERY_AND_VALUE:
            yield linear_features(module, name)
