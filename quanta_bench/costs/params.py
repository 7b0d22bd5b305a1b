"""What one method costs on one model, from its configuration alone: size, memory, work, rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quanta_bench.errors import BenchError
from quanta_bench.models.meta import adapt_quietly, meta_model, quantities
from quanta_bench.plugins import build_method

if TYPE_CHECKING:
    from torch import nn

TOKENS = 512
"""Length of the sequence over which work is measured."""

MOMENT_BYTES = 4
"""AdamW keeps two moments of each trained parameter, in float32."""


class Rank(BaseModel):
    """Bounds on a rank that modules of one kind share.

    Attributes:
        module: last part of the modules' names.
        modules: how many there are.
        of: what is bounded: ``update`` is what the method adds to a weight.
        least: lower bound.
        most: upper bound.
    """

    module: str
    modules: int
    of: str
    least: int
    most: int


class Params(BaseModel):
    """A method on a model.

    Attributes:
        model: the model.
        method: registered name of the method.
        settings: its settings, those left at their defaults among them.
        base: parameters of the base model, a tied one once.
        trainable: parameters that train.
        added: those that train and are not the base's own.
        head: those of a classification head, which are among the trained ones; 0 without one.
        percent_of_base: trainable / base, in percent.
        percent_of_total: trainable / (base + added), in percent.
        optimizer_bytes: AdamW's two moments in float32.
        multiply_adds: what the method adds to a forward pass in evaluation mode, unmerged, in
            multiplications with addition for each token of one sequence; ``None`` if the model
            could not be run without weights.
        tokens: length of that sequence.
        not_measured: why there are no multiply-adds.
        ranks: bounds on ranks, where the method knows any.
    """

    model: str
    method: str
    settings: dict[str, Any]
    base: int
    trainable: int
    added: int
    head: int = 0
    percent_of_base: float
    percent_of_total: float
    optimizer_bytes: int
    multiply_adds: float | None
    tokens: int
    not_measured: str = ""
    ranks: list[Rank] = []


def describe(model: str, method: str, settings: Mapping[str, Any]) -> Params:
    """Count and measure a method on a model without weights.

    Args:
        model: as :func:`quanta_bench.models.meta.meta_model` takes it.
        method: registered name of the method.
        settings: its settings; what is left out has the method's default.

    Raises:
        BenchError: an unknown model, method or setting, or settings that do not fit the model.
    """
    from quanta_bench.models.heads import classifies, head_of

    built = build_method(method, settings)
    base = meta_model(model)
    own = {id(parameter): parameter.numel() for parameter in base.parameters()}
    head = sum(value.numel() for value in head_of(base).values()) if classifies(base) else 0
    tokens = min(TOKENS, _longest(base))
    work: float | None = None
    not_measured = ""
    before = _attempt(base, tokens, warm=False)
    adapted = adapt_quietly(base, built)
    found = quantities(own, built.trainable(adapted).values())
    after = _attempt(adapted.eval(), tokens)
    if isinstance(before, int) and isinstance(after, int):
        work = (after - before) / tokens
    else:
        not_measured = next(why for why in (before, after) if isinstance(why, str))
    return Params(
        model=model,
        method=method,
        settings=built.config.model_dump(mode="json"),
        base=found.base,
        trainable=found.trainable,
        added=found.added,
        head=head if found.trainable else 0,
        percent_of_base=100 * found.of_base,
        percent_of_total=100 * found.of_total,
        optimizer_bytes=2 * MOMENT_BYTES * found.trainable,
        multiply_adds=work,
        tokens=tokens,
        not_measured=not_measured,
        ranks=group_ranks(built.ranks(adapted)),
    )


def multiply_adds(model: nn.Module, tokens: int, *, warm: bool = True) -> int:
    """Multiply-adds of one forward pass over one sequence, by torch's own counter.

    A forward pass goes before it: what a method computes once, such as a folded matrix, is not
    part of each pass. What it computes anew in each, whatever the length, is counted.

    Args:
        model: on any device, the meta device included.
        tokens: length of the sequence.
        warm: whether to let that pass go before; a plain model computes nothing once.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    # Ones, for 0 can be the padding token.
    ids = torch.ones(1, tokens, dtype=torch.long, device=device)
    with torch.no_grad():
        if warm:
            model(input_ids=ids)
        counter = FlopCounterMode(display=False)
        with counter:
            model(input_ids=ids)
    # The counter has two operations for a multiplication with addition.
    return int(counter.get_total_flops()) // 2


def group_ranks(ranks: Mapping[str, Mapping[str, tuple[int, int]]]) -> list[Rank]:
    """Bounds by the last part of a module's name, equal ones together, in order of appearance."""
    groups: dict[tuple[str, str, int, int], int] = {}
    for name, bounds in ranks.items():
        for of, (least, most) in bounds.items():
            key = (name.rpartition(".")[2], of, least, most)
            groups[key] = groups.get(key, 0) + 1
    return [
        Rank(module=module, modules=count, of=of, least=least, most=most)
        for (module, of, least, most), count in groups.items()
    ]


def on_screen(found: Params) -> RenderableType:
    """One quantity a line."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    settings = ", ".join(f"{key}={value}" for key, value in found.settings.items())
    per_token = found.not_measured and f"not measured: {found.not_measured}"
    if found.multiply_adds is not None:
        added, over = f"{found.multiply_adds:,.0f}", f"{found.tokens} tokens"
        per_token = f"{added} multiply-adds added, over a sequence of {over}, not merged"
    head = f", {found.head:,} a classification head's" if found.head else ""
    lines = {
        "Model": f"{found.model}, {found.base:,} parameters",
        "Method": found.method + (f" ({settings})" if settings else ""),
        "Trained": f"{found.trainable:,} parameters, {found.added:,} of them added{head}",
        "% of base": f"{found.percent_of_base:.4g}",
        "% of base + added": f"{found.percent_of_total:.4g}",
        "Optimizer": f"{found.optimizer_bytes / 2**20:,.1f} MiB (AdamW, two float32 moments)",
        "Each token": per_token,
        "Rank": "\n".join(map(_words, _together(found.ranks))) or "no bounds known",
    }
    for name, text in lines.items():
        grid.add_row(name, Text(text))
    return Group(grid)


def _together(ranks: list[Rank]) -> list[list[Rank]]:
    """The bounds of the same modules, side by side."""
    kinds: dict[tuple[str, int], list[Rank]] = {}
    for rank in ranks:
        kinds.setdefault((rank.module, rank.modules), []).append(rank)
    return list(kinds.values())


def _words(ranks: list[Rank]) -> str:
    first = ranks[0]
    bounds = ", ".join(f"{rank.of} {rank.least}..{rank.most}" for rank in ranks)
    return (
        f"{first.module} ({first.modules} {'layer' if first.modules == 1 else 'layers'}): {bounds}"
    )


def _longest(model: nn.Module) -> int:
    """The longest sequence that a model has positions for."""
    config: Any = getattr(model, "config", None)
    positions = getattr(config, "max_position_embeddings", None) or TOKENS
    # Some models number positions from the padding token's index on.
    offset = getattr(config, "pad_token_id", None) or 0
    return max(1, int(positions) - int(offset) - 1)


def _attempt(model: nn.Module, tokens: int, *, warm: bool = True) -> int | str:
    """The multiply-adds, or why the model cannot be run without weights."""
    try:
        return multiply_adds(model, tokens, warm=warm)
    except BenchError as error:
        return str(error)
    except (RuntimeError, ValueError, TypeError) as error:  # a look at values that are not there
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
