"""Workload of QuanTA's benchmarks: forward and backward pass of one layer with various adapters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch.nn.functional import linear

from baselines.quanta import execution
from baselines.quanta.circuit import Circuit
from baselines.quanta.config import QuantaConfig
from baselines.quanta.planning import Plan

RANK = 8  # of LoRA in all benchmarks

Call: TypeAlias = Callable[[], object]


def quanta(dims: tuple[int, ...], **settings: Any) -> QuantaConfig:
    """A configuration for the one layer of :class:`Work`."""
    return QuantaConfig(dims=dims, target_modules=["0"], **settings)


class Work:
    """A batch of vectors for one square layer, and its variants to time.

    Args:
        width: width of the layer.
        tokens: number of vectors.
        dtype: dtype of the frozen layer; bfloat16 enables autocast.
        device: device of the layer and the vectors.
    """

    def __init__(
        self, width: int, tokens: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.device = torch.device(device)
        self.autocast = dtype == torch.bfloat16
        layer = nn.Linear(width, width, bias=False, dtype=dtype, device=device)
        self.layer = layer.requires_grad_(False)
        x, output_grad = (torch.randn(tokens, width, generator=generator) for _ in range(2))
        self.x = x.to(device, dtype).requires_grad_()
        self.output_grad = output_grad.to(device, dtype)

    def frozen(self) -> Call:
        """The layer alone."""
        return self._forward_backward(self.layer, [])

    def adapted(self, config: Any) -> Call:
        """The layer with a `peft` adapter."""
        layer = nn.Linear(
            self.layer.in_features,
            self.layer.out_features,
            bias=False,
            dtype=self.layer.weight.dtype,
            device=self.device,
        )
        layer.load_state_dict(self.layer.state_dict())
        model = get_peft_model(nn.Sequential(layer), config)
        return self._forward_backward(model, list(model.parameters()))

    def bare(self, circuit: Circuit, *, recompute: bool) -> Call:
        """Matrix products of the gates' shapes, without data movement between them."""
        gates = [
            nn.Parameter(self._randn(step.fan_out, step.fan_in) / math.sqrt(step.fan_in))
            for step in circuit.steps
        ]

        def forward(x: Tensor) -> Tensor:
            base = linear(x, self.layer.weight)
            result: Tensor = _Bare.apply(  # type: ignore[no-untyped-call]
                x, base, recompute, *(gate.to(x.dtype) for gate in gates)
            )
            return result

        return self._forward_backward(forward, gates)

    def einsum(self, circuit: Circuit) -> Call:
        """The circuit as one einsum, on top of the layer."""
        import opt_einsum

        gates = [nn.Parameter(self._randn(*shape) / 8) for shape in circuit.gate_shapes]
        # opt_einsum needs an explicit batch dimension in the expression.
        symbol = opt_einsum.get_symbol(200)
        contract = opt_einsum.contract_expression(
            circuit.einsum_expression().replace("...", symbol),
            (len(self.x), *circuit.sizes),
            *circuit.gate_shapes,
        )

        def forward(x: Tensor) -> Tensor:
            tensors = [gate.to(x.dtype) for gate in gates]
            result: Tensor = contract(x.reshape(len(x), *circuit.sizes), *tensors)
            return linear(x, self.layer.weight) + result.reshape(len(x), -1)

        return self._forward_backward(forward, gates)

    def circuit(self, circuit: Circuit) -> Call:
        """The circuit alone."""
        gates = [nn.Parameter(self._randn(*shape) / 8) for shape in circuit.gate_shapes]
        return self._forward_backward(
            lambda x: circuit.apply(x, list(gates), recompute=False), gates
        )

    def planned(self, circuit: Circuit, plan: Plan) -> Call:
        """The circuit by a plan, less a frozen copy of it, on top of the layer."""
        gates = [nn.Parameter(self._randn(*shape) / 8) for shape in circuit.gate_shapes]
        frozen = [gate.detach().clone() for gate in gates]
        return self._forward_backward(
            lambda x: execution.run(
                plan, x, [gates, frozen], recompute=False, weight=self.layer.weight
            ),
            gates,
        )

    def lora(self) -> Call:
        """LoRA's two products alone."""
        width = self.layer.in_features
        down, up = (nn.Parameter(self._randn(*shape)) for shape in ((RANK, width), (width, RANK)))
        return self._forward_backward(lambda x: linear(linear(x, down), up), [down, up])

    def _randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device)

    def _forward_backward(
        self, forward: Callable[[Tensor], Tensor], parameters: Sequence[Tensor]
    ) -> Call:
        def call() -> None:
            for tensor in (self.x, *parameters):
                tensor.grad = None
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                result = forward(self.x)
            torch.autograd.backward(result, self.output_grad.to(result.dtype))

        return call


class _Bare(torch.autograd.Function):
    """A chain of products ``(r, c)`` times ``(c, n)``, each on the data in its current layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Tensor, recompute: bool, *gates: Tensor) -> Tensor:
        *inputs, last = _chain(x, gates)
        ctx.recompute = recompute
        ctx.save_for_backward(*gates, *([x] if recompute else inputs))
        return base + last.reshape(base.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        saved = ctx.saved_tensors
        count = len(ctx.needs_input_grad) - 3
        gates, inputs = saved[:count], saved[count:]
        if ctx.recompute:
            inputs = _chain(inputs[0], gates)
        gradients: list[Tensor] = []
        g = grad
        for gate, x in zip(gates[::-1], inputs[:count][::-1], strict=True):
            g = g.reshape(gate.shape[0], -1)
            gradients.insert(0, g @ x.mT)
            g = gate.mT @ g
        return (g.reshape(grad.shape), grad, None, *gradients)


def _chain(x: Tensor, gates: Sequence[Tensor]) -> list[Tensor]:
    inputs = []
    for gate in gates:
        x = x.reshape(gate.shape[1], -1)
        inputs.append(x)
        x = gate @ x
    return [*inputs, x]
