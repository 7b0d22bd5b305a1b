"""QTHA: a low-rank adapter whose narrow middle passes through a quantum network.

It follows only the abstract of arXiv:2503.12790 (whose first version calls the method QWTHN): the
update combines a tensor network and a quantum neural network. Everything beyond that sentence is
our reading, and every choice in it is a setting.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.origins import BOUNDED, OURS
from baselines.quantum import Ansatz, QuantumNetwork, backend_from
from baselines.quantum.ansatz import MOST_QUBITS, Entangler, Rotation
from baselines.tensor_train import TensorTrain, even_modes
from baselines.tuners import AdapterConfig, AdapterModule, AdapterTuner, register
from baselines.tuners.initial import generator_for, uniform_
from baselines.tuners.method import TunerMethod
from baselines.tuners.settings import Count, Finite, settings_class
from quanta_bench.method import Claim, Row

if TYPE_CHECKING:
    from baselines.quantum import Backend

NOT_A_MATRIX = (
    "QTHA computes a nonlinear function of the layer's input in a quantum network, not a matrix "
    "that could be added to the weight; keep it as a separate adapter"
)


class QthaType(enum.StrEnum):
    """The `peft` type of a QTHA adapter; saved as ``"QTHA"``."""

    QTHA = "QTHA"


@dataclass
class QthaConfig(AdapterConfig):
    """Configuration of QTHA as a `peft` method; see also `AdapterConfig`.

    Args:
        qubits: Number n of qubits, and width between the two matrix product operators.
        depth: Trained blocks of the quantum network; see `baselines.quantum.Ansatz` for this and
            the next three fields.
        rotations: Rotations of a block on each qubit, of ``"rx"``, ``"ry"`` and ``"rz"``.
        entangler: CNOTs that end a block: ``"chain"``, ``"ring"`` or ``"none"``.
        encoding: Rotation that encodes a number on its qubit: ``"ry"`` or ``"rx"``.
        scaling: How a number z becomes an angle: ``"tanh"`` takes pi tanh(z), ``"none"`` z itself.
        rank: All ranks of the two matrix product operators.
        cores: Number of cores of each.
        modes: Lists of ``cores`` sizes: a width that equals the product of a list is split
            accordingly, any other as evenly as possible. This includes the number of qubits.
        alpha: The update is scaled by ``alpha / qubits``.
        classical_weight: Initial weights of z.
        quantum_weight: Initial weights of the quantum network's values.
        angle_start: Initial trained angles: ``"uniform"`` in [-pi, pi], or ``"zero"``.
        backend: What computes the network: ``"engine"``, or ``"pennylane:"`` and a device's name.
        shots: Circuit executions from which a PennyLane device estimates values, in training and
            evaluation; exact values if ``None``.

    Raises:
        ValueError: A value is out of range; the message names the field, the value and the reason.
    """

    qubits: Annotated[int, Field(ge=1, le=MOST_QUBITS)] = field(default=4)
    depth: Annotated[int, Field(ge=0)] = field(default=1)
    rotations: Annotated[list[Rotation], Field(min_length=1)] = field(
        default_factory=lambda: ["ry"]
    )
    entangler: Entangler = field(default="chain")
    encoding: Literal["ry", "rx"] = field(default="ry")
    scaling: Literal["tanh", "none"] = field(default="tanh")
    rank: Count = field(default=7)
    cores: Count = field(default=3)
    modes: list[list[Count]] = field(default_factory=list)
    alpha: Finite = field(default=8.0)
    classical_weight: Finite = field(default=1.0)
    quantum_weight: Finite = field(default=1.0)
    angle_start: Literal["uniform", "zero"] = field(default="uniform")
    backend: str = field(default="engine")
    shots: Count | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = QthaType.QTHA
        for sizes in self.modes:
            if len(sizes) != self.cores:
                self.refuse(
                    "modes",
                    f"has {sizes}; give {self.cores} sizes, one for each of the cores",
                )
        try:
            self.ansatz()
            self.new_backend("")
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from error

    def ansatz(self) -> Ansatz:
        """The architecture of the quantum network."""
        return Ansatz(self.qubits, self.depth, tuple(self.rotations), self.entangler, self.encoding)

    def new_backend(self, name: str) -> Backend:
        """The backend for one module; its samples depend on the seed and the module name."""
        seed = generator_for(self.seed, name).initial_seed() % 2**32
        return backend_from(self.backend, self.shots, seed)

    def modes_of(self, width: int) -> tuple[int, ...]:
        """The mode sizes of a width."""
        for sizes in self.modes:
            if math.prod(sizes) == width:
                return tuple(sizes)
        return even_modes(width, self.cores)


class QthaAdapter(AdapterModule):
    """(alpha / n) B(wc * z + wq * q), with z = A(x) and q = <Z> of the circuit that encodes z."""

    not_linear = NOT_A_MATRIX

    def __init__(self, config: QthaConfig, in_features: int, out_features: int, name: str) -> None:
        super().__init__()
        self.in_features = in_features
        self.config = config
        ansatz = config.ansatz()
        self.network = QuantumNetwork(
            ansatz.qubits,
            ansatz.depth,
            ansatz.rotations,
            ansatz.entangler,
            encoding=ansatz.encoding,
            backend=config.new_backend(name),
        )
        narrow = config.modes_of(config.qubits)
        self.down = TensorTrain(narrow, config.modes_of(in_features), config.rank)
        self.up = TensorTrain(config.modes_of(out_features), narrow, config.rank)
        self.classical = nn.Parameter(torch.empty(config.qubits))
        self.quantum = nn.Parameter(torch.empty(config.qubits))
        self.angles = nn.Parameter(torch.empty(ansatz.shape))

    def reset(self, generator: torch.Generator) -> None:
        """Initialise the update to zero: the last core of B is zero.

        Entries of A have standard deviation 1 / sqrt(in), so that z has the scale of the input.
        """
        self.down.reset(generator, 1 / math.sqrt(self.in_features))
        self.up.reset(generator, 1 / math.sqrt(self.config.qubits), zero=True)
        nn.init.constant_(self.classical, self.config.classical_weight)
        nn.init.constant_(self.quantum, self.config.quantum_weight)
        if self.config.angle_start == "uniform":
            uniform_(self.angles, math.pi, generator)
        else:
            nn.init.zeros_(self.angles)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``; all vectors go through the network at once."""
        # The network computes in at least float32, even for half-precision parameters.
        dtype = torch.promote_types(self.angles.dtype, torch.float32)
        z = self.down(x).to(dtype)
        encoded = math.pi * torch.tanh(z) if self.config.scaling == "tanh" else z
        q = self.network.expectations(self.angles, encoded)
        scale = self.config.alpha / self.config.qubits
        mixed = scale * (self.classical * z + self.quantum * q)
        result: Tensor = self.up(mixed.to(self.classical.dtype))
        return result


class QthaModel(AdapterTuner):
    """The `peft` tuner."""

    prefix = "qtha_"

    @staticmethod
    def make_adapter(
        config: QthaConfig, in_features: int, out_features: int, name: str
    ) -> AdapterModule:
        """The adapter of a layer of these widths; all widths are supported."""
        return QthaAdapter(config, in_features, out_features, name)


register(QthaType.QTHA, QthaConfig, QthaModel)


def _row(rank: int, of_lora: str, rate: str) -> Row:
    return Row(
        "QTHA-style (our reading)",
        config={"qubits": 4, "rank": rank, "target_modules": ("q_proj", "v_proj")},
        training={"learning_rate": 3e-3},
        origin={
            "rank": f"{OURS}: 76% fewer parameters than {of_lora}, as in the abstract",
            **dict.fromkeys(("qubits", "target_modules"), OURS),
            "learning_rate": rate,
        },
    )


class Qtha(TunerMethod):
    """QTHA, in our reading: y = W x + (alpha / n) B(wc * z + wq * q(z)), z = A x.

    A and B are matrix product operators (in -> n and n -> out), q(z) the expectation values of Z
    on the n qubits of a circuit that encodes z and applies trained blocks of rotations and CNOTs,
    wc and wq trained vectors. The last core of B starts at zero.
    """

    name = "qtha"
    title = "QTHA-style (our reading)"
    tuner_config = QthaConfig
    Config = settings_class(QthaConfig)
    rows: ClassVar[Mapping[str, Row]] = {
        "embedded": _row(7, "LoRA r=8 on SmolLM2-135M (109,500 to 460,800)", BOUNDED),
        "paper": _row(15, "LoRA r=8 on LLaMA2-7B (1,014,528 to 4,194,304)", OURS),
    }
    search: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "learning_rate": (1e-3, 3e-3, 1e-2, 3e-2),
        "depth": (1, 2, 4),
    }
    source = "Kong et al. 2025, arXiv:2503.12790, abstract; the circuit is our reading."
    footnote = (
        "QTHA-style is our reading of a public abstract (arXiv:2503.12790), which gives no "
        "formula; none of that paper's accuracies is claimed for it."
    )
    mergeable = Claim(False, NOT_A_MATRIX)

    @classmethod
    def sizes(cls, model: nn.Module) -> Iterator[Mapping[str, Any]]:
        """Ranks 1 to 64 of the matrix product operators; the quantum network is unchanged."""
        for rank in range(1, 65):
            yield {"rank": rank}
