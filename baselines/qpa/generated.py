"""Parameters of a model that are generated rather than trained.

A parameter is replaced by a parametrization of `torch.nn.utils.parametrize`: reading it gives its
start plus a slice of what a generator has moved by. So whatever reads the adapter's weights - its
layers, `peft`'s merge, recomputation under gradient checkpointing - reads generated ones. The start
stays in its place as a frozen parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from baselines.qpa.generator import WeightGenerator
from baselines.tuners.frozen import DerivedTensors, frozen
from quanta_bench.method import BenchError

NAME = "qpa"
"""Name of the generators' module in the adapted model."""

Groups: TypeAlias = Mapping[str, Sequence[nn.Parameter]]
"""Parameters that one generator generates, in its order, by the group's name."""


class Source(nn.Module):
    """A generator, and the weights of the forward pass that is running.

    Weights are generated from the parameters as they are: once at the start of each forward pass,
    and at each read outside one. Inside `baselines.tuners.frozen.frozen`, all reads without
    gradients share one generation.

    Args:
        generator: The generator, with its start.
        relative: Give the difference from what the generator gives now, instead of the values
            themselves.

    Attributes:
        read: Whether a parameter that is generated from it was ever read.
    """

    origin: Tensor | None

    def __init__(self, generator: WeightGenerator, relative: bool) -> None:
        super().__init__()
        self.generator = generator
        with torch.no_grad():
            origin = generator() if relative else None
        self.register_buffer("origin", origin, persistent=False)
        self.read = False
        self.derived = DerivedTensors()
        self._running = False
        self._current: Tensor | None = None  # the running pass's, kept for its backward pass

    def weights(self) -> Tensor:
        """The weights, shape ``(count,)``, with a graph if gradients are enabled."""
        current, grad = self._current, torch.is_grad_enabled()
        readable = current is not None and (current.requires_grad or not grad)
        if readable and (self._running or _in_backward()):
            return cast(Tensor, current)
        if not grad and self.derived.kept:
            return self.derived.get("weights", self._generate)
        return self._generate()

    def begin(self) -> None:
        """Begin a forward pass: all its reads share one generation, and so one graph.

        The weights are generated at once. A checkpointed layer, which is computed a second time,
        must only read them.
        """
        self._running, self._current = False, None
        self._current = self.weights()
        self._running = True

    def end(self) -> None:
        """End a forward pass; a pass with a graph may still be recomputed, in its backward pass."""
        self._running = False
        if self._current is not None and not self._current.requires_grad:
            self._current = None

    def _generate(self) -> Tensor:
        weights: Tensor = self.generator()
        return weights if self.origin is None else weights - self.origin

    def __getstate__(self) -> dict[str, object]:
        # A tensor with a graph cannot be copied, and need not be.
        return {**self.__dict__, "_running": False, "_current": None}


def _in_backward() -> bool:
    """Whether autograd is at work, as while a checkpointed layer is computed again."""
    return torch._C._current_graph_task_id() != -1


class Generators(nn.Module):
    """The generators of an adapted model, which are told when a forward pass begins.

    Args:
        sources: The generators in the order of their groups.
        seed: The seed of their start.
    """

    def __init__(self, sources: Iterable[Source], seed: int) -> None:
        super().__init__()
        self.sources = nn.ModuleList(sources)
        self.seed = seed

    def watch(self, model: nn.Module) -> None:
        """Generate the weights at each forward pass of a model."""
        self._watching = (
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._end, always_call=True),
        )

    def unwatch(self) -> None:
        """Leave that model alone."""
        for handle in self._watching:
            handle.remove()

    def _begin(self, module: nn.Module, args: object) -> None:
        for source in self.sources:
            cast(Source, source).begin()

    def _end(self, module: nn.Module, args: object, output: object) -> None:
        for source in self.sources:
            cast(Source, source).end()
        if output is None or not self.training or not torch.is_grad_enabled():
            return  # the pass failed, or adapters may be switched off or merged
        if not any(cast(Source, source).read for source in self.sources):
            raise BenchError(
                "Nothing read the generated weights: the layers of this adapter take theirs from "
                "`parameters()`, in which there are only their starts. They need to read them as "
                "attributes or items of the modules that hold them."
            )


class Slice(nn.Module):
    """The parametrization: a start plus a slice of a source's weights.

    Args:
        source: The source. It is not a submodule: it belongs to the model, which has it once.
        offset: Index of the first weight.
    """

    def __init__(self, source: Source, offset: int) -> None:
        super().__init__()
        self._source = (source,)
        self.offset = offset

    def forward(self, start: Tensor) -> Tensor:
        """The generated parameter, with the shape and the dtype of its start."""
        source = self._source[0]
        source.read = True
        weights = source.weights()[self.offset : self.offset + start.numel()]
        # `peft` may switch an adapter's gradients on; the start does not train.
        return start.detach() + weights.view_as(start).to(start.dtype)


def generate(
    model: nn.Module,
    base: nn.Module,
    groups: Groups,
    make: Callable[[int, str], WeightGenerator],
    *,
    relative: bool,
    seed: int,
) -> None:
    """Have parameters of a model generated, in place. Its generators become ``model.qpa``.

    Args:
        model: The adapted model.
        base: The model within it whose every forward pass needs weights.
        groups: The parameters; one that several modules share is generated once.
        make: Makes the generator of a number of weights, for the group of a name.
        relative: Keep the parameters' values as the start, exactly; otherwise they are lost, and
            the generated values are the start.
        seed: The seed of the generators' start, to keep.
    """
    sources = []
    places: dict[int, tuple[Source, int]] = {}
    for name, parameters in groups.items():
        source = Source(make(sum(value.numel() for value in parameters), name), relative)
        source.train(model.training)
        offset = 0
        for parameter in parameters:
            places[id(parameter)] = source, offset
            offset += parameter.numel()
            parameter.requires_grad_(False)
            if not relative:
                with torch.no_grad():
                    parameter.zero_()
        sources.append(source)
    for module in list(model.modules()):
        for name, value in list(module._parameters.items()):
            if value is not None and id(value) in places:
                _replace(module, name, Slice(*places[id(value)]))
    generators = Generators(sources, seed)
    generators.watch(base)
    model.add_module(NAME, generators)


def generators_of(model: nn.Module) -> Generators | None:
    """The generators of a model that has generated parameters, otherwise nothing."""
    found = model._modules.get(NAME)
    return found if isinstance(found, Generators) else None


def settle(model: nn.Module) -> None:
    """Make ordinary parameters of generated ones, for good, with their present values."""
    generators = generators_of(model)
    if generators is not None:
        _to_plain(model)
        generators.unwatch()


@contextmanager
def settled(model: nn.Module) -> Iterator[None]:
    """A block in which generated parameters are ordinary ones, and the generators not there."""
    generators = generators_of(model)
    if generators is None:
        yield
        return
    replaced = _to_plain(model)
    try:
        yield
    finally:
        for module, name, part, start in replaced:
            cast(nn.Parameter, getattr(module, name)).data = start
            _replace(module, name, part)
        model.add_module(NAME, generators)


def _to_plain(model: nn.Module) -> list[tuple[nn.Module, str, Slice, Tensor]]:
    """Take generators and parametrizations out; returns modules, names and starts to put back."""
    replaced = [
        (module, name, part, cast(Tensor, chain.original).data)
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for name, chain in cast(nn.ModuleDict, module.parametrizations).items()
        if isinstance(part := cast(nn.ModuleList, chain)[0], Slice)
    ]
    with torch.no_grad(), frozen(model):
        # Copies, for these are views of one vector; and all before the first is taken out.
        values = [getattr(module, name).clone() for module, name, _, _ in replaced]
    for (module, name, _, _), value in zip(replaced, values, strict=True):
        # A copy of a module shares its class, from which the property is about to be deleted.
        kind = type(module)
        module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        cast(nn.Parameter, getattr(module, name)).data = value
    delattr(model, NAME)
    return replaced


def _replace(module: nn.Module, name: str, part: Slice) -> None:
    # Unchecked, for the check would generate all weights once for each parameter.
    parametrize.register_parametrization(module, name, part, unsafe=True)
