"""What a batch of training takes of a machine, measured on a model that has shapes and no content.

One step is run by torch itself on fake tensors: they know their shapes and hold nothing, so a model
of 70 billion parameters takes a moment. Operations are those that torch's counter sees; memory is
that of the tensors which the backward pass keeps. Layers of a model are alike, so it is built with
one and with two of them, and each further one counts as the second does.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from quanta_bench.errors import UsageError
from quanta_bench.models.meta import adapt_quietly, layers_of, meta_model

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quanta_bench.data.batches import CandidateBatch
    from quanta_bench.method import Method


@dataclass(frozen=True)
class Shape:
    """A batch of like items.

    Attributes:
        items: number of items that are computed at once.
        context: tokens before the answer.
        candidates: continuations of each; 0 for an encoder, which reads the context alone.
        answer: tokens of a continuation.
        packed: whether an item's continuations share its context in one row.
    """

    items: int
    context: int
    candidates: int = 1
    answer: int = 1
    packed: bool = False

    @property
    def fed(self) -> int:
        """Tokens that go into the model, none of them padding."""
        if not self.candidates:
            return self.items * self.context
        if self.packed:
            return self.items * (self.context + self.candidates * (self.answer - 1))
        return self.items * self.candidates * (self.context + self.answer - 1)

    @property
    def predicted(self) -> int:
        """Positions at which the model's words are asked for."""
        return self.items * self.candidates * self.answer


@dataclass(frozen=True)
class Footprint:
    """What one forward and backward pass takes.

    Attributes:
        forward: operations, two for a multiplication with addition.
        backward: operations; 0 if nothing trains.
        kept: bytes that stay from the forward to the backward pass, parameters not counted.
    """

    forward: float
    backward: float
    kept: float

    def __sub__(self, other: Footprint) -> Footprint:
        return Footprint(
            self.forward - other.forward, self.backward - other.backward, self.kept - other.kept
        )

    def plus(self, times: int, other: Footprint) -> Footprint:
        """This and another one, so many times."""
        return Footprint(
            self.forward + times * other.forward,
            self.backward + times * other.backward,
            self.kept + times * other.kept,
        )


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
        model: as :func:`quanta_bench.models.meta.meta_model` takes it.
        method: what trains.
        shape: the batch.
        precision: ``bfloat16`` keeps a frozen base so and computes so, by autocast; ``float32``
            does neither.
        recomputed: whether activations are computed again in the backward pass.

    Returns:
        That of the whole model, and the part of each of its layers but the first.

    Raises:
        BenchError: the method does not fit the model, or one of the two cannot do without values.
    """
    one, two = (_of_layers(model, count, method, shape, precision, recomputed) for count in (1, 2))
    each = two - one
    return one.plus(layers_of(model) - 1, each), each


def _of_layers(
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
    # What a plug-in keeps outside of its parameters stays on the meta device.
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        # A plug-in may ask whether a tensor has changed; a fake one never has.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        _make_fake(model)
        try:
            return _step(model, _batch(shape), half)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            raise UsageError(
                f"it cannot be run without values ({type(error).__name__}: "
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
            kept[storage._cdata] = storage  # held, so that no other takes its place
        return tensor

    forward, backward = (
        FlopCounterMode(display=False, custom_mapping=_attention()) for _ in range(2)
    )
    with forward, saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            if isinstance(batch, torch.Tensor):
                mask = torch.ones_like(batch)
                said = model(input_ids=batch, attention_mask=mask).logits.float()
            else:
                said = token_log_likelihoods(model, batch)
        total = said.sum()
    kept_bytes = sum(storage.nbytes() for storage in kept.values())
    if total.requires_grad:
        with backward:
            total.backward()
    return Footprint(forward.get_total_flops(), backward.get_total_flops(), kept_bytes)


def _attention() -> dict[Any, Any]:
    """The operations of the processor's attention, which the counter has for GPUs only."""
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
    """Give a model on the meta device tensors that act as those of a processor do."""
    import torch
    from torch import nn

    made: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            made[id(tensor)] = (
                nn.Parameter(empty, requires_grad=tensor.requires_grad)
                if isinstance(tensor, nn.Parameter)
                else empty
            )
        return made[id(tensor)]

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

    # Ones, for 0 can be the padding token.
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
