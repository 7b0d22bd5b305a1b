"""Series and parallel adapters as methods of the suite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from baselines.bottleneck import LLAMA_BEFORE, ParallelConfig, SeriesConfig
from baselines.origins import BOUNDED, COMPARED, OURS
from baselines.targets import check_targets
from baselines.tuners.method import TunerMethod
from baselines.tuners.settings import TunerSettings, settings_class
from quanta_bench.method import YES, Claim, Row

if TYPE_CHECKING:
    from torch import nn

PAPER = "QuanTA paper, Table E.2"
READING = "our reading of the default modules: it gives the 0.747% of the QuanTA paper's Table 2"
PUBLIC = "default of the public code of LLM-Adapters"
LLAMA_MLP = ("gate_proj", "up_proj", "down_proj")
WIDTHS = tuple(sorted({m * 2**n for m in (1, 3) for n in range(11)}))  # 1, 2, 3, 4, 6, .. 3072

NOT_LINEAR = Claim(False, "an activation between its two projections makes it nonlinear")


class BottleneckMethod(TunerMethod):
    """Base class of methods that put a bottleneck adapter at each target."""

    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3),
        "bottleneck": (2, 4, 8, 16),
    }
    mergeable = NOT_LINEAR

    def __init__(self, config: TunerSettings) -> None:
        super().__init__(config)
        zero = config.start == "zero"
        self.exact_start = (
            YES if zero else Claim(False, "both projections are initialised randomly")
        )

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Bottleneck widths from 1 to 3072 that are 2**n or 3 * 2**n."""
        return ({"bottleneck": width} for width in WIDTHS)


def check_before(model: nn.Module, before: Iterable[str]) -> None:
    """Reject a name in ``before`` that no module of the model has.

    LLaMA's names, the default, are not checked: other models may lack them.

    Raises:
        UsageError: no module of the model has such a name.
    """
    check_targets(model, [name for name in before if name not in LLAMA_BEFORE], "before")


class Series(BottleneckMethod):
    """Series adapters: h + s U act(D h) replaces the input h of a layer, or its output.

    D (b x d) and U (d x b) have no biases. By default the adapter is on the input of the gate and
    up projections and on the output of the down projection.
    """

    name = "series"
    title = "Series adapters"
    Config = settings_class(SeriesConfig, LLAMA_MLP)
    tuner_config = SeriesConfig
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "Series b=4",
            config={"bottleneck": 4},
            training={"learning_rate": 1e-3},
            origin={"learning_rate": BOUNDED, "bottleneck": OURS, "start": OURS},
        ),
        "paper": Row(
            "Series b=64",
            config={"bottleneck": 64, "start": "normal"},
            training={"learning_rate": 1e-4},
            origin={
                "bottleneck": PAPER,
                "learning_rate": PAPER,
                "target_modules": READING,
                "before": PUBLIC,
                "activation": PUBLIC,
                "scale": PUBLIC,
                "start": PUBLIC,
            },
        ),
    }
    source = "Houlsby et al. 2019, arXiv:1902.00751; placed as in Hu et al. 2023, arXiv:2304.01933."

    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        """Put an adapter before or after each target; see `PeftMethod.adapt`."""
        check_before(model, self.config.before)
        return super().adapt(model, seed)


class Parallel(BottleneckMethod):
    """Parallel adapters: y = W x + s U act(D x).

    D (b x in) and U (out x b) have no biases.
    """

    name = "parallel"
    title = "Parallel adapters"
    Config = settings_class(ParallelConfig)
    tuner_config = ParallelConfig
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": Row(
            "Parallel b=8",
            config={"bottleneck": 8, "target_modules": ("q_proj", "v_proj")},
            training={"learning_rate": 3e-3},
            origin={
                **dict.fromkeys(("bottleneck", "target_modules", "start"), OURS),
                "learning_rate": COMPARED,
            },
        ),
        "paper": Row(
            "Parallel b=64",
            config={
                "bottleneck": 64,
                "target_modules": ("q_proj", "k_proj", "v_proj"),
                "start": "normal",
            },
            training={"learning_rate": 1e-4},
            origin={
                "bottleneck": PAPER,
                "learning_rate": PAPER,
                "target_modules": READING,
                "activation": PUBLIC,
                "scale": PUBLIC,
                "start": PUBLIC,
            },
        ),
    }
    source = "He et al. 2021, arXiv:2110.04366; placed as in Hu et al. 2023, arXiv:2304.01933."
