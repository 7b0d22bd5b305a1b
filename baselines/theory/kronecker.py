"""KronA as a circuit, the paper's remark after Theorem 6.1."""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.krona import KronaAdapter, KronaConfig
from baselines.quanta.circuit import Circuit
from baselines.quanta.gate import Gate
from quanta_bench.verification import Conditions, Finding, Outcome, Verification

# Side of A, widths of the layer, and the axes of a circuit that is the same.
LAYERS = ((4, 12, 12), (8, 64, 64), (16, 64, 64), (2, 32, 32), (8, 32, 64), (4, 48, 16))


class KronaIsQuanta(Verification):
    """The adapter of the method `krona` against circuits that hold its two factors."""

    name = "krona"
    title = "KronA is a circuit, of a gate on each of two axes or of gates on pairs"
    source = "QuanTA paper, remark after Theorem 6.1"
    place = 30

    def run(self, conditions: Conditions) -> Outcome:
        """Compare the matrices, and outputs for random inputs."""
        generator = torch.Generator().manual_seed(conditions.seed)
        rounds = conditions.choose(20, quick=3)
        single, pair, outputs = [], [], []
        for _ in range(rounds):
            for side, wide_in, wide_out in LAYERS:
                config = KronaConfig(side=side, scale=0.5)
                adapter = KronaAdapter(config, wide_in, wide_out).double()
                adapter.a.data.normal_(generator=generator)
                adapter.b.data.normal_(generator=generator)
                a, b = adapter.a.detach(), adapter.scale * adapter.b.detach()
                wanted = adapter.matrix().detach()
                axes = Circuit(
                    (side, wide_in // side), [Gate((1,), out=(wide_out // side,)), Gate((0,))]
                )
                single.append(_relative(axes.matrix([b, a]), wanted))
                joint = Circuit(
                    (side, wide_in // side), [Gate((0, 1), out=(side, wide_out // side))]
                )
                gate = torch.einsum("ab,cd->acbd", a, b)
                pair.append(_relative(joint.matrix([gate]), wanted))
                x = torch.randn(5, wide_in, dtype=torch.float64, generator=generator)
                outputs.append(_relative(axes.apply(x, [b, a]), adapter(x).detach()))
        return Outcome(
            [
                Finding("relative difference, a gate an axis", len(single), max(single), 1e-14),
                Finding("relative difference, one gate on both", len(pair), max(pair), 1e-14),
                Finding("relative difference of outputs", len(outputs), max(outputs), 1e-14),
            ]
        )


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())
