"""Model parameters that are generated rather than trained.

A parameter is replaced by a parametrization of `torch.nn.utils.parametrize`: reading it returns its
initial value plus a slice of a generator's output. So everything that reads the adapter's weights -
its layers, `peft`'s merge, recomputation under gradient checkpointing - reads generated ones. The
initial value stays in place as a frozen parameter.
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
"""The parameters of each generator, in order, by group name."""


class Source(nn.Module):
    """A generator, and the weights of the current forward pass.

    Weights are generated from the current parameters: once at the start of each forward pass, and
    at each read outside a pass. Inside `baselines.tuners.frozen.frozen`, all reads without
    gradients share one generation.

    Args:
        generator: The initialised generator.
        relative: Return the change since the generator's initial output instead of the output.

    Attributes:
        read: Whether any parameter generated from it was ever read.
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
        self._current: Tensor | None = None  # of the current pass, kept for its backward pass

    def weights(self) -> Tensor:
        """The weights, shape ``(count,)``, with an autograd graph if gradients are enabled."""
        current, grad = self._current, torch.is_grad_enabled()
        readable = current is not None and (current.requires_grad or not grad)
        if readable and (self._running or _in_backward()):
            return cast(Tensor, current)
        if not grad and self.derived.kept:
            return self.derived.get("weights", self._generate)
        return self._generate()

    def begin(self) -> None:
        """Begin a forward pass: all its reads share one generation, and so one graph.

        The weights are generated immediately, because a checkpointed layer, which is computed
        twice, must only read them.
        """
        self._running, self._current = False, None
        self._current = self.weights()
        self._running = True

    def end(self) -> None:
        """End a forward pass; a pass with a graph may still be recomputed in its backward pass."""
        self._running = False
        if self._current is not None and not self._current.requires_grad:
            self._current = None

    def _generate(self) -> Tensor:
        weights: Tensor = self.generator()
        return weights if self.origin is None else weights - self.origin

    def __getstate__(self) -> dict[str, object]:
        # A tensor with a graph cannot be copied, nor does it need to be.
        return {**self.__dict__, "_running": False, "_current": None}


def _in_backward() -> bool:
    """Whether a backward pass is running, as when a checkpointed layer is recomputed."""
    return torch._C._current_graph_task_id() != -1


class Generators(nn.Module):
    """The generators of an adapted model, which follow its forward passes.

    Args:
        sources: The generators in the order of their groups.
        seed: The seed of their initial values.
    """

    def __init__(self, sources: Iterable[Source], seed: int) -> None:
        super().__init__()
        self.sources = nn.ModuleList(sources)
        self.seed = seed

    def watch(self, model: nn.Module) -> None:
        """Register hooks that generate the weights at each forward pass of a model."""
        self._handles = (
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._end, always_call=True),
        )

    def unwatch(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, args: object) -> None:
        for source in self.sources:
            cast(Source, source).begin()

    def _end(self, module: nn.Module, args: object, output: object) -> None:
        for source in self.sources:
            cast(Source, source).end()
        if output is None or not self.training or not torch.is_grad_enabled():
            return  # the pass failed, or adapters may be disabled or merged
        if not any(cast(Source, source).read for source in self.sources):
            raise BenchError(
                "Nothing read the generated weights: the layers of this adapter get their weights "
                "from `parameters()`, which has only the initial values. They need to read them as "
                "attributes or items of the modules that own them."
            )


class Slice(nn.Module):
    """The parametrization: an initial value plus a slice of a source's weights.

    Args:
        source: The source. It is not registered as a submodule, because the model owns it.
        offset: Index of the first weight.
    """

    def __init__(self, source: Source, offset: int) -> None:
        super().__init__()
        self._source = (source,)
        self.offset = offset

    def forward(self, start: Tensor) -> Tensor:
        """The generated parameter, with the shape and dtype of its initial value."""
        source = self._source[0]
        source.read = True
        weights = source.weights()[self.offset : self.offset + start.numel()]
        # `peft` may enable an adapter's gradients, but the initial value does not train.
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
    """Replace parameters by generated ones, in place; ``model.qpa`` holds the generators.

    Args:
        model: The adapted model.
        base: The inner model whose forward passes trigger the generation.
        groups: The parameters; one that several modules share is generated once.
        make: Creates a generator from a number of weights and a group name.
        relative: Keep the parameters' values exactly as initial values; otherwise they are
            discarded in favour of the generated ones.
        seed: The seed of the generators' initial values, to store.
    """
    sources = []
    slices: dict[int, tuple[Source, int]] = {}
    for name, parameters in groups.items():
        source = Source(make(sum(value.numel() for value in parameters), name), relative)
        source.train(model.training)
        offset = 0
        for parameter in parameters:
            slices[id(parameter)] = source, offset
            offset += parameter.numel()
            parameter.requires_grad_(False)
            if not relative:
                with torch.no_grad():
                    parameter.zero_()
        sources.append(source)
    for module in list(model.modules()):
        for name, value in list(module._parameters.items()):
            if value is not None and id(value) in slices:
                _replace(module, name, Slice(*slices[id(value)]))
    generators = Generators(sources, seed)
    generators.watch(base)
    model.add_module(NAME, generators)


def generators_of(model: nn.Module) -> Generators | None:
    """The generators of a model, or ``None`` if no parameters are generated."""
    module = model._modules.get(NAME)
    return module if isinstance(module, Generators) else None


def settle(model: nn.Module) -> None:
    """Permanently turn generated parameters into ordinary ones, with their current values."""
    generators = generators_of(model)
    if generators is not None:
        _to_plain(model)
        generators.unwatch()


@contextmanager
def settled(model: nn.Module) -> Iterator[None]:
    """A block in which generated parameters are ordinary ones and the generators are removed."""
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
    """Remove generators and parametrizations; return what is needed to restore them."""
    replaced = [
        (module, name, part, cast(Tensor, chain.original).data)
        for module in model.modules()
        if parametrize.is_parametrized(module)
        for name, chain in cast(nn.ModuleDict, module.parametrizations).items()
        if isinstance(part := cast(nn.ModuleList, chain)[0], Slice)
    ]
    with torch.no_grad(), frozen(model):
        # Copies, because these are views of one vector; all of them before the first is removed.
        values = [getattr(module, name).clone() for module, name, _, _ in replaced]
    for (module, name, _, _), value in zip(replaced, values, strict=True):
        # A copy of a module shares its class, whose property is about to be deleted.
        kind = type(module)
        module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        cast(nn.Parameter, getattr(module, name)).data = value
    delattr(model, NAME)
    return replaced


def _replace(module: nn.Module, name: str, part: Slice) -> None:
    # Unchecked, because the check would generate all weights once per parameter.
    parametrize.register_parametrization(module, name, part, unsafe=True)
