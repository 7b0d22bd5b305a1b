"""Compute and memory of a training batch, measured on a model without weights.

torch runs one step on fake tensors, which have shapes but no data, so that even a model of 70
billion parameters takes a moment. Operations come from torch's counter; memory is that of the
tensors saved for the backward pass. A model's layers are alike, so it is built with one and with
two of them, and every further layer is assumed to cost as much as the second.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from quanta_bench.errors import UsageError
from quanta_bench.models.meta import adapt_quietly, layers_of, meta_model
from quanta_bench.spec import canonical

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quanta_bench.data.batches import CandidateBatch
    from quanta_bench.method import Method


@dataclass(frozen=True)
class Shape:
    """A batch of items of equal shape.

    Attributes:
        items: number of items computed at once.
        context: tokens before the answer.
        candidates: candidates per item; 0 for an encoder, which reads only the context.
        answer: tokens per candidate.
        packed: whether an item's candidates share its context in one row.
    """

    items: int
    context: int
    candidates: int = 1
    answer: int = 1
    packed: bool = False

    @property
    def fed(self) -> int:
        """Tokens fed to the model, without padding."""
        if not self.candidates:
            return self.items * self.context
        if self.packed:
            return self.items * (self.context + self.candidates * (self.answer - 1))
        return self.items * self.candidates * (self.context + self.answer - 1)

    @property
    def predicted(self) -> int:
        """Positions whose next token is predicted."""
        return self.items * self.candidates * self.answer


@dataclass(frozen=True)
class Footprint:
    """The cost of one forward and backward pass.

    Attributes:
        forward: operations; a multiply-add counts as two.
        backward: operations; 0 if nothing trains.
        kept: bytes saved for the backward pass, parameters excluded.
    """

    forward: float
    backward: float
    kept: float

    def __sub__(self, other: Footprint) -> Footprint:
        return Footprint(
            self.forward - other.forward, self.backward - other.backward, self.kept - other.kept
        )

    def plus(self, times: int, other: Footprint) -> Footprint:
        """The sum of this and ``times`` times another."""
        return Footprint(
            self.forward + times * other.forward,
            self.backward + times * other.backward,
            self.kept + times * other.kept,
        )


class Footprints:
    """Measurements of :func:`measure`, each made once."""

    def __init__(self) -> None:
        self._measured: dict[str, tuple[Footprint, Footprint]] = {}

    def get(
        self, model: str, method: Method[Any], shape: Shape, precision: str, recomputed: bool
    ) -> tuple[Footprint, Footprint]:
        """What :func:`measure` returns for these arguments."""
        settings = canonical(method.config.model_dump(mode="json"))
        key = repr((model, method.name, settings, shape, precision, recomputed))
        if key not in self._measured:
            self._measured[key] = measure(
                model, method, shape, precision=precision, recomputed=recomputed
            )
        return self._measured[key]


def measure(
    model: str,
    method: Method[Any],
    shape: Shape,
    *,
    precision: str = "bfloat16",
    recomputed: bool = False,
) -> tuple[Footprint, Footprint]:
    """The footprint of a training step's forward and backward pass over one batch.

    Args:
        model: a name accepted by :func:`quanta_bench.models.meta.meta_model`.
        method: the method.
        shape: the batch.
        precision: ``bfloat16`` stores a frozen base in bfloat16 and computes under autocast;
            ``float32`` does neither.
        recomputed: whether activations are recomputed in the backward pass.

    Returns:
        The footprint of the whole model, and that of each layer after the first.

    Raises:
        BenchError: the method does not fit the model, or one of them needs tensor values.
    """
    one, two = (
        _measure_layers(model, count, method, shape, precision, recomputed) for count in (1, 2)
    )
    each = two - one
    return one.plus(layers_of(model) - 1, each), each


def _measure_layers(
    name: str, layers: int, method: Method[Any], shape: Shape, precision: str, recomputed: bool
) -> Footprint:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    half = precision == "bfloat16"
    model = meta_model(name, layers)
    if half and method.base_precision == "frozen":
        model = model.to(torch.bfloat16)
    if recomputed:
        from quanta_bench.training.trainer import recompute_activations

        recompute_activations(model)
    model = adapt_quietly(model, method).train()
    # Tensors that a plug-in keeps outside its parameters stay on the meta device.
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        # A plug-in may check whether a tensor has changed; a fake one never has.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        _make_fake(model)
        try:
            return _step(model, _batch(shape), half)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise UsageError(
                f"it cannot run without tensor values ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:120]})"
            ) from error


def _step(model: nn.Module, batch: CandidateBatch | torch.Tensor, half: bool) -> Footprint:
    import torch
    from torch.autograd.graph import saved_tensors_hooks
    from torch.utils.flop_counter import FlopCounterMode

    from quanta_bench.evaluation.likelihood import token_log_likelihoods

    tensors = (*model.parameters(), *model.buffers())
    own = {tensor.untyped_storage()._cdata for tensor in tensors}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # a reference, so that its address is not reused
        return tensor

    forward, backward = (
        FlopCounterMode(display=False, custom_mapping=_attention()) for _ in range(2)
    )
    with forward, saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            if isinstance(batch, torch.Tensor):
                mask = torch.ones_like(batch)
                outputs = model(input_ids=batch, attention_mask=mask).logits.float()
            else:
                outputs = token_log_likelihoods(model, batch)
        total = outputs.sum()
    kept_bytes = sum(storage.nbytes() for storage in kept.values())
    if total.requires_grad:
        with backward:
            total.backward()
    return Footprint(forward.get_total_flops(), backward.get_total_flops(), kept_bytes)


def _attention() -> dict[Any, Any]:
    """The operation counts of CPU attention, which torch's counter has only for GPUs."""
    import torch
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    aten = torch.ops.aten

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return sdpa_flop_count(query, key, value)  # type: ignore[no-untyped-call]

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        return sdpa_backward_flop_count(  # type: ignore[no-untyped-call]
            gradient, query, key, value
        )

    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


def _make_fake(model: nn.Module) -> None:
    """Replace a meta-device model's tensors by fake tensors that act like CPU tensors."""
    import torch
    from torch import nn

    replacements: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in replacements:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            replacements[id(tensor)] = (
                nn.Parameter(empty, requires_grad=tensor.requires_grad)
                if isinstance(tensor, nn.Parameter)
                else empty
            )
        return replacements[id(tensor)]

    for module in model.modules():
        groups: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for group in groups:
            for name, tensor in group.items():
                if tensor is not None:
                    group[name] = fake(tensor)


def _batch(shape: Shape) -> CandidateBatch | torch.Tensor:
    import torch

    from quanta_bench.data.batches import CandidateBatch, collate
    from quanta_bench.data.encoding import Encoded
    from quanta_bench.task import Example

    if not shape.candidates:
        return torch.ones(shape.items, shape.context, dtype=torch.long)
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    # Ones, because 0 may be the padding token.
    item = Encoded(
        Example("", "", {}),
        0,
        ((1,) * shape.context,) * shape.candidates,
        ((1,) * shape.answer,) * shape.candidates,
        (1,) * shape.candidates,
        gold=0,
        cut=0,
    )
    with unset_fake_temporarily():
        batch = collate([item] * shape.items, 0, packed=shape.packed)
    values: dict[str, Any] = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        is_tensor = isinstance(value, torch.Tensor)
        values[field.name] = torch.empty(value.shape, dtype=value.dtype) if is_tensor else value
    return CandidateBatch(**values)
