"""The architecture of a quantum network: qubits, rotations, CNOTs and the input encoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Rotation: TypeAlias = Literal["rx", "ry", "rz"]
Entangler: TypeAlias = Literal["chain", "ring", "none"]

ROTATIONS: tuple[str, ...] = get_args(Rotation)
ENTANGLERS: tuple[str, ...] = get_args(Entangler)
ENCODINGS = ("ry", "rx")
MOST_QUBITS = 24


@dataclass(frozen=True)
class Ansatz:
    """Blocks of rotations on each qubit followed by CNOTs on neighbours.

    Args:
        qubits: Number of qubits, 1 to 24. Qubit 0 is the most significant bit of the index of a
            basis state.
        depth: Number of blocks; 0 leaves the encoded input unchanged.
        rotations: Rotations of a block on each qubit, in the order in which they act.
        entangler: CNOTs that end a block, in the order in which they act: ``"chain"`` has qubit i
            control qubit i + 1, ``"ring"`` closes the chain with a CNOT from the last qubit to the
            first if there are three or more qubits, ``"none"`` has no CNOTs.
        encoding: Rotation that encodes an input, applied to each qubit of |0...0> before the
            blocks.

    Raises:
        ValueError: A value out of range or an unknown name; the message names the argument.
    """

    qubits: int
    depth: int
    rotations: tuple[str, ...] = ("ry",)
    entangler: str = "chain"
    encoding: str = "ry"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rotations", tuple(self.rotations))
        for name, least, most in (("qubits", 1, MOST_QUBITS), ("depth", 0, None)):
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, int)
                or value < least
                or (most is not None and value > most)
            ):
                limit = f"at least {least}" if most is None else f"from {least} to {most}"
                raise ValueError(f"{name}={value!r} is not an integer {limit}")
        if not self.rotations or set(self.rotations) - set(ROTATIONS):
            raise ValueError(
                f"rotations={self.rotations!r}: give one or more of {', '.join(ROTATIONS)}"
            )
        if self.entangler not in ENTANGLERS:
            raise ValueError(f"entangler={self.entangler!r} is not one of {', '.join(ENTANGLERS)}")
        if self.encoding not in ENCODINGS:
            raise ValueError(
                f"encoding={self.encoding!r} is not one of {', '.join(ENCODINGS)}; a rotation "
                "about z would leave |0> unchanged"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the angles: (depth, qubits, rotations)."""
        return self.depth, self.qubits, len(self.rotations)

    @property
    def cnots(self) -> tuple[tuple[int, int], ...]:
        """Control and target of the CNOTs of one block, in the order in which they act."""
        if self.entangler == "none":
            return ()
        chain = tuple((qubit, qubit + 1) for qubit in range(self.qubits - 1))
        closed = self.entangler == "ring" and self.qubits > 2
        return (*chain, (self.qubits - 1, 0)) if closed else chain
