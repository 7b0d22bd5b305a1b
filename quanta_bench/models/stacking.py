"""Several adapted models over one frozen base, computed in one pass over the rows of all.

A `twin` of the base shares all its tensors; each run adapts its own. A `StackedModel` is one more
twin, in which each layer that a run has replaced applies the runs' layers to their own rows. All
other layers see one batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

M = TypeVar("M", bound=nn.Module)


class NotStackableError(Exception):
    """Models that cannot be computed together; the message says why."""


def twin(model: M) -> M:
    """A copy of a model's modules that shares its parameters and buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def replaced(base: nn.Module, adapted: nn.Module, prefix: str = "") -> dict[str, nn.Module]:
    """The outermost modules of an adapted twin that are not as in the base, by name.

    Args:
        base: the base.
        adapted: a twin of it that was adapted in place.
        prefix: name of both in the whole model.
    """
    children = base._modules, adapted._modules
    if type(base) is not type(adapted) or children[0].keys() != children[1].keys():
        return {prefix: adapted}
    found: dict[str, nn.Module] = {}
    for name, module in base.named_children():
        found |= replaced(module, adapted.get_submodule(name), f"{prefix}.{name}".lstrip("."))
    return found


class Rows:
    """How the rows of the pass that is being computed are divided among runs.

    Args:
        groups: the number of each run's group.

    Attributes:
        blocks: runs of one group with equally many rows each, and that number, in the order in
            which their rows stand.
    """

    def __init__(self, groups: Sequence[int]) -> None:
        self.groups = tuple(groups)
        self.blocks: list[tuple[tuple[int, ...], int]] = []

    def divided(self, counts: Sequence[int]) -> list[tuple[tuple[int, ...], int]]:
        """The blocks of a pass with this many rows of each run."""
        blocks: dict[tuple[int, int], list[int]] = {}
        for run, (group, count) in enumerate(zip(self.groups, counts, strict=True)):
            if count:
                blocks.setdefault((group, count), []).append(run)
        return [(tuple(blocks[block]), block[1]) for block in sorted(blocks)]


class StackedLayer(nn.Module):
    """The layers of several runs at one place, each applied to its own run's rows.

    Layers of one group, which differ in the values of their tensors only, are applied together by
    ``torch.vmap`` if they have equally many rows: tensors that they share, such as the frozen
    weight, stay one, and all others are stacked, so that a product with them is one batched
    product. What cannot be vectorised is computed layer by layer.

    Args:
        layers: one a run. They are not submodules: they belong to their runs' models.
        rows: the rows of each run.
    """

    def __init__(self, layers: Sequence[nn.Module], rows: Rows) -> None:
        super().__init__()
        self._layers = tuple(layers)
        self._rows = rows
        self._tensors = [
            dict((*layer.named_parameters(), *layer.named_buffers())) for layer in layers
        ]
        # Looking for tensors of two names takes longer than many a layer, so it is done once.
        self._tied = any(
            len([*layer.named_parameters(remove_duplicate=False)])
            + len([*layer.named_buffers(remove_duplicate=False)])
            > len(tensors)
            for layer, tensors in zip(layers, self._tensors, strict=True)
        )
        self._vectorised = dict.fromkeys(rows.groups, True)
        self._fixed: dict[int, dict[str, Tensor]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(rows, ...)``, the rows of the first block first."""
        blocks = self._rows.blocks
        if len(x) != sum(len(runs) * count for runs, count in blocks):
            raise NotStackableError("a layer does not see the rows of a batch as they are")
        parts = torch.split(x, [len(runs) * count for runs, count in blocks])
        outputs = [
            self._together(runs, part) for (runs, _), part in zip(blocks, parts, strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _together(self, runs: tuple[int, ...], x: Tensor) -> Tensor:
        layers = [self._layers[run] for run in runs]
        if len(layers) == 1:
            return cast(Tensor, layers[0](x))
        parts = x.reshape(len(layers), -1, *x.shape[1:])
        group = self._rows.groups[runs[0]]
        if self._vectorised[group]:
            try:
                stacked = self._stacked(runs)
                call = torch.vmap(
                    lambda tensors, part: functional_call(
                        layers[0], tensors, part, tie_weights=self._tied
                    )
                )
                return cast(Tensor, call(stacked, parts)).flatten(0, 1)
            except (RuntimeError, NotImplementedError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                self._vectorised[group] = False
        return torch.cat([layer(part) for layer, part in zip(layers, parts, strict=True)])

    def _stacked(self, runs: tuple[int, ...]) -> Mapping[str, Tensor]:
        """The tensors in which the layers differ, each stacked along a new first axis."""
        named = [self._tensors[run] for run in runs]
        own = {
            name: [tensors[name] for tensors in named]
            for name, first in named[0].items()
            if any(tensors[name] is not first for tensors in named)
        }
        return {
            name: _joined(tensors) if tensors[0].requires_grad else self._frozen(name, runs)
            for name, tensors in own.items()
        }

    def _frozen(self, name: str, runs: tuple[int, ...]) -> Tensor:
        """Frozen tensors of each run's own, such as those that an adapter subtracts, stacked.

        They never change, so those of the whole group are stacked once. Which of its runs share a
        pass changes from step to step.
        """
        group = self._rows.groups[runs[0]]
        members = [run for run, of in enumerate(self._rows.groups) if of == group]
        held = self._fixed.setdefault(group, {})
        if name not in held:
            held[name] = torch.stack([self._tensors[run][name] for run in members])
        if list(runs) == members:
            return held[name]
        places = torch.tensor([members.index(run) for run in runs], device=held[name].device)
        return held[name].index_select(0, places)


def _joined(tensors: list[Tensor]) -> Tensor:
    """The trained tensors of several runs as one, along a new first axis.

    It is a leaf of the graph. Its gradient is handed on to the runs' tensors as views, where the
    gradient of ``torch.stack`` would be copied for each of them: for ten runs of LoRA a training
    step would take a quarter more operations.
    """
    if not torch.is_grad_enabled():
        return torch.stack(tensors)
    with torch.no_grad():
        joined = torch.stack(tensors)
    joined.requires_grad_()

    def hand_on(joined: Tensor) -> None:
        if joined.grad is None:
            return
        parts, joined.grad = joined.grad.unbind(), None
        sums: list[tuple[Tensor, Tensor]] = []
        for tensor, part in zip(tensors, parts, strict=True):
            if tensor.grad is None:
                tensor.grad = part
            else:
                sums.append((tensor.grad, part))
        if sums:
            torch._foreach_add_([total for total, _ in sums], [part for _, part in sums])

    joined.register_post_accumulate_grad_hook(hand_on)  # type: ignore[no-untyped-call]
    return joined


class StackedModel(nn.Module):
    """A model that computes each row with the adapter of the run that the row belongs to.

    Args:
        base: the frozen base.
        twins: its twins, each adapted in place for a run.
        trained: the parameters that train in each.
        groups: a number for each run, equal for runs whose adapters differ in values only.

    Raises:
        NotStackableError: a run trains a tensor of the base, or outside the layers it replaces.
    """

    def __init__(
        self,
        base: nn.Module,
        twins: Sequence[nn.Module],
        trained: Sequence[Sequence[nn.Parameter]],
        groups: Sequence[int],
    ) -> None:
        super().__init__()
        self.rows = Rows(groups)
        self.model = twin(base)
        changed = [replaced(base, adapted) for adapted in twins]
        shared = {id(parameter) for parameter in base.parameters()}
        for layers, parameters in zip(changed, trained, strict=True):
            inside = {
                id(value) for layer in layers.values() for value in layer.parameters()
            } - shared
            if "" in layers or any(id(parameter) not in inside for parameter in parameters):
                raise NotStackableError("it trains more than the layers that it replaces")
        names = sorted({name for layers in changed for name in layers})
        for name in names:
            if any(other != name and name.startswith(f"{other}.") for other in names):
                continue  # within a layer that another run has replaced as a whole
            own = [adapted.get_submodule(name) for adapted in twins]
            parent, _, child = name.rpartition(".")
            setattr(self.model.get_submodule(parent), child, StackedLayer(own, self.rows))

    def order(self, counts: Sequence[int]) -> list[int]:
        """The runs in the order of their rows in a batch with this many rows of each run."""
        return [run for runs, _ in self.rows.divided(counts) for run in runs]

    @contextmanager
    def of(self, counts: Sequence[int]) -> Iterator[Any]:
        """The model for batches with this many rows of each run, in the order of :meth:`order`."""
        self.rows.blocks = self.rows.divided(counts)
        try:
            yield self.model
        finally:
            self.rows.blocks = []


_ERRORS = (RuntimeError, TypeError, ValueError, AttributeError, LookupError)
"""What models and layers raise for inputs that they do not support."""

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest difference of outputs and gradients in `check`, relative to the largest of each tensor.

Another run's adapter in place of a run's own changes them by their whole size.
"""


def check(
    base: nn.Module,
    twins: Sequence[nn.Module],
    adapted: Sequence[nn.Module],
    trained: Sequence[Sequence[nn.Parameter]],
    arithmetic: torch.dtype,
) -> None:
    """Test that models of one group compute in common passes what each computes by itself.

    The outputs of a few random tokens and the gradients of what trains are compared for the first
    and the last model, with their parameters moved away from where they start, because many
    adapters start as exactly nothing. Parameters and random state are left as they were.

    Args:
        base: the frozen base.
        twins: its twins, adapted in place.
        adapted: the models that the method returned for them.
        trained: the parameters that train in each.
        arithmetic: dtype of the pass, by autocast where it is not float32.

    Raises:
        NotStackableError: they do not.
    """
    stack = StackedModel(base, twins, trained, [0] * len(twins))
    places = sorted({0, len(twins) - 1})
    device = next(base.parameters()).device
    kept = [[value.detach().clone() for value in values] for values in trained]
    modes = [model.training for model in (stack, *adapted)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        embedded = cast(Any, base).get_input_embeddings().weight.shape[0]
        rows = torch.randint(embedded, (len(twins), 2, 12), device=device)
        with torch.no_grad():
            for value in (value for values in trained for value in values):
                value.add_(0.02 * torch.randn(value.shape).to(value))
        before = _random_state(device)
        autocast = torch.autocast(device.type, arithmetic, enabled=arithmetic != torch.float32)
        try:
            with autocast, stack.of([2] * len(twins)) as model:
                stacked = model.train()(input_ids=rows.flatten(0, 1), use_cache=False).logits
                found = _probed(stacked.reshape(len(twins), 2, *stacked.shape[1:]), trained, places)
            for place in places:
                with autocast:
                    own = adapted[place].train()(input_ids=rows[place], use_cache=False).logits
                    alone = _probed(own[None], [trained[place]], [0])
                _compare(found[places.index(place)], alone[0], TOLERANCES[arithmetic])
        except _ERRORS as error:
            raise NotStackableError(f"{type(error).__name__}: {error}") from error
        finally:
            with torch.no_grad():
                for values, old in zip(trained, kept, strict=True):
                    for value, start in zip(values, old, strict=True):
                        value.copy_(start)
                        value.grad = None
            for model, mode in zip((stack, *adapted), modes, strict=True):
                model.train(mode)
        if not all(map(torch.equal, before, _random_state(device))):
            raise NotStackableError("it draws random numbers while it trains, such as dropout")


def _random_state(device: torch.device) -> list[Tensor]:
    host = torch.get_rng_state()
    return [host, torch.cuda.get_rng_state(device)] if device.type == "cuda" else [host]


def _probed(
    logits: Tensor, trained: Sequence[Sequence[nn.Parameter]], places: Sequence[int]
) -> list[list[Tensor]]:
    """The logits at some places, with the gradients of what trains there."""
    torch.autograd.backward(logits.float().square().mean((1, 2, 3)).sum())
    found = []
    for place in places:
        gradients = [torch.zeros_like(v) if v.grad is None else v.grad for v in trained[place]]
        found.append([logits[place].detach(), *gradients])
        for value in trained[place]:
            value.grad = None
    return found


def _compare(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        size = other.abs().max().clamp_min(1e-30)
        if not bool((one - other).abs().max() <= tolerance * size):
            raise NotStackableError("what it computes depends on the other rows of a batch")
