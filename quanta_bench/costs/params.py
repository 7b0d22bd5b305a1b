"""Size, memory, compute and rank of one method on one model, from its configuration alone."""

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
from quanta_bench.spec import ModelSpec
from quanta_bench.suites.fitting import with_targets
from quanta_bench.suites.schema import RowSpec

if TYPE_CHECKING:
    from torch import nn

TOKENS = 512
"""Length of the sequence for which multiply-adds are counted."""

MOMENT_BYTES = 4
"""Bytes of a float32 moment; AdamW keeps two per trained parameter."""


class Rank(BaseModel):
    """Bounds on a rank shared by modules of one kind.

    Attributes:
        module: last component of the modules' names.
        modules: number of modules.
        of: what is bounded; ``update`` is what the method adds to a weight.
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
        settings: its settings, defaults included.
        base: parameters of the base model; tied ones count once.
        trainable: trainable parameters.
        added: trainable parameters that are not the base's own.
        head: trainable parameters of a classification head; 0 without one.
        percent_of_base: trainable / base, in percent.
        percent_of_total: trainable / (base + added), in percent.
        optimizer_bytes: AdamW's two moments in float32.
        multiply_adds: multiply-adds per token that the unmerged method adds to a forward pass in
            evaluation mode; ``None`` if the model cannot run without weights.
        tokens: length of the sequence used for the count.
        not_measured: why ``multiply_adds`` is ``None``.
        ranks: bounds on ranks, if the method knows any.
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
    """Count the parameters and multiply-adds of a method on a model without weights.

    Args:
        model: a name accepted by :func:`quanta_bench.models.meta.meta_model`.
        method: registered name of the method.
        settings: its settings; those left out have the method's defaults, where these name layers
            of the model or those that stand for them.

    Raises:
        BenchError: an unknown model, method or setting, or settings that do not fit the model.
    """
    from quanta_bench.models.capabilities import positions
    from quanta_bench.models.heads import classifies, head_of

    row = RowSpec(method=method, settings=dict(settings))
    built = build_method(method, with_targets(row, model, kept=settings).row.settings)
    base = meta_model(model)
    own = {id(parameter): parameter.numel() for parameter in base.parameters()}
    head = sum(value.numel() for value in head_of(base).values()) if classifies(base) else 0
    tokens = min(TOKENS, positions(base) or TOKENS)
    work: float | None = None
    not_measured = ""
    before = _attempt(base, tokens, warm=False)
    adapted = adapt_quietly(base, built)
    count = quantities(own, built.trainable(adapted).values())
    after = _attempt(adapted.eval(), tokens)
    if isinstance(before, int) and isinstance(after, int):
        work = (after - before) / tokens
    else:
        not_measured = next(reason for reason in (before, after) if isinstance(reason, str))
    return Params(
        model=model,
        method=method,
        settings=built.config.model_dump(mode="json"),
        base=count.base,
        trainable=count.trainable,
        added=count.added,
        head=head if count.trainable else 0,
        percent_of_base=100 * count.of_base,
        percent_of_total=100 * count.of_total,
        optimizer_bytes=2 * MOMENT_BYTES * count.trainable,
        multiply_adds=work,
        tokens=tokens,
        not_measured=not_measured,
        ranks=group_ranks(built.ranks(adapted)),
    )


def multiply_adds(model: nn.Module, tokens: int, *, warm: bool = True) -> int:
    """Multiply-adds of one forward pass over one sequence, from torch's own counter.

    A warm-up pass comes first, so that what a method computes only once, such as a folded matrix,
    is not counted. What it recomputes in every pass is counted, whatever the sequence length.

    Args:
        model: on any device, the meta device included.
        tokens: length of the sequence.
        warm: whether to run the warm-up pass; a plain model does not need one.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    # Ones, because 0 may be the padding token.
    ids = torch.ones(1, tokens, dtype=torch.long, device=device)
    with torch.no_grad():
        if warm:
            model(input_ids=ids)
        counter = FlopCounterMode(display=False)
        with counter:
            model(input_ids=ids)
    # The counter counts a multiply-add as two operations.
    return int(counter.get_total_flops()) // 2


def group_ranks(ranks: Mapping[str, Mapping[str, tuple[int, int]]]) -> list[Rank]:
    """Group equal bounds by the last component of the modules' names, in order of appearance."""
    groups: dict[tuple[str, str, int, int], int] = {}
    for name, bounds in ranks.items():
        for of, (least, most) in bounds.items():
            key = (name.rpartition(".")[2], of, least, most)
            groups[key] = groups.get(key, 0) + 1
    return [
        Rank(module=module, modules=count, of=of, least=least, most=most)
        for (module, of, least, most), count in groups.items()
    ]


def on_screen(params: Params) -> RenderableType:
    """One quantity per line."""
    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    settings = ", ".join(f"{key}={value}" for key, value in params.settings.items())
    per_token = params.not_measured and f"not measured: {params.not_measured}"
    if params.multiply_adds is not None:
        added, over = f"{params.multiply_adds:,.0f}", f"{params.tokens} tokens"
        per_token = f"{added} multiply-adds added, over a sequence of {over}, not merged"
    head = f", {params.head:,} a classification head's" if params.head else ""
    lines = {
        "Model": f"{_model(params.model)}, {params.base:,} parameters",
        "Method": params.method + (f" ({settings})" if settings else ""),
        "Trained": f"{params.trainable:,} parameters, {params.added:,} of them added{head}",
        "% of base": f"{params.percent_of_base:.4g}",
        "% of base + added": f"{params.percent_of_total:.4g}",
        "Optimizer": f"{params.optimizer_bytes / 2**20:,.1f} MiB (AdamW, two float32 moments)",
        "Each token": per_token,
        "Rank": "\n".join(map(_rank_text, _by_module(params.ranks))) or "no bounds known",
    }
    for name, text in lines.items():
        grid.add_row(name, Text(text))
    return Group(grid)


def _model(name: str) -> str:
    """A model's name in a narrow column: of a local folder its own alone."""
    is_local = name.startswith("local:")
    return f"{ModelSpec.from_reference(name).title} (local folder)" if is_local else name


def _by_module(ranks: list[Rank]) -> list[list[Rank]]:
    """Bounds grouped by module."""
    groups: dict[tuple[str, int], list[Rank]] = {}
    for rank in ranks:
        groups.setdefault((rank.module, rank.modules), []).append(rank)
    return list(groups.values())


def _rank_text(ranks: list[Rank]) -> str:
    first = ranks[0]
    bounds = ", ".join(f"{rank.of} {rank.least}..{rank.most}" for rank in ranks)
    return (
        f"{first.module} ({first.modules} {'layer' if first.modules == 1 else 'layers'}): {bounds}"
    )


def _attempt(model: nn.Module, tokens: int, *, warm: bool = True) -> int | str:
    """The multiply-adds, or why the model cannot run without weights."""
    try:
        return multiply_adds(model, tokens, warm=warm)
    except BenchError as error:
        return str(error)
    except (
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:  # the model reads values, which a meta tensor does not have
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
