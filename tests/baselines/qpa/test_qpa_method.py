"""QPA around LoRA and DoRA: what is generated, when, and what is left of it when saved."""

from __future__ import annotations

import copy
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from weight_writes import WRITES

from baselines import peft_types
from baselines.lora import Lora
from baselines.qpa.generated import Generators, Source, generate, generators_of, settled
from baselines.qpa.generator import WeightGenerator
from baselines.qpa.inner import METHODS, inner_method
from baselines.qpa.method import Qpa
from quanta_bench.method import BenchError, Claim, UsageError

INNER = ("lora", "dora")
KINDS = [
    {"inner": inner, "generators": generators}
    for inner in INNER
    for generators in ("model", "module")
]


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    with settled(model):
        return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_zero_start_is_the_inner_methods_start_bit_for_bit(
    qpa: Any, kind: dict[str, Any], tiny: Any, logits: Any
) -> None:
    method = qpa(**kind)
    model, alone = method.adapt(tiny(), 3), method.inner.adapt(tiny(), 3)
    assert torch.equal(logits(model), logits(alone))
    found, expected = plain_state(model), alone.state_dict()
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


@pytest.mark.parametrize("generators", ["model", "module"])
def test_paper_start_is_what_the_generator_gives(
    qpa: Any, generators: str, tiny: Any, ids: Any
) -> None:
    method = qpa(start="paper", generators=generators)
    model: Any = method.adapt(tiny(), 3)
    alone: Any = method.inner.adapt(tiny(), 3)
    sources = list(generators_of(model).sources)  # type: ignore[union-attr]
    vectors = [source.generator().detach() for source in sources]
    # A then B, layer by layer; q_proj before v_proj.
    weights = torch.cat(vectors).split([v.numel() for v in method.inner.trainable(alone).values()])
    with torch.no_grad():
        for parameter, weight in zip(method.inner.trainable(alone).values(), weights, strict=True):
            parameter.copy_(weight.view_as(parameter))
    assert len(sources) == (1 if generators == "model" else 4)
    assert [v.numel() for v in vectors] == ([3584] if generators == "model" else [1024, 768] * 2)
    torch.testing.assert_close(model(input_ids=ids).logits, alone(input_ids=ids).logits)
    assert not method.exact_start
    assert method.exact_start.reason


def test_weights_move_by_what_the_generator_moves_by(qpa: Any, train: Any) -> None:
    method = qpa()
    run = train(method, steps=3)
    generators = generators_of(run.model)
    assert generators is not None
    now = generators.sources[0].generator().detach()
    fresh = train(method, steps=0)
    then = generators_of(fresh.model).sources[0].generator().detach()  # type: ignore[union-attr]
    start = torch.cat([v.detach().flatten() for v in lora_weights(fresh.model)])
    moved = torch.cat([v.detach().flatten() for v in lora_weights(run.model)])
    assert (now - then).abs().max() > 1e-3
    torch.testing.assert_close(moved, start + (now - then))


def lora_weights(model: nn.Module) -> list[Tensor]:
    return [
        getattr(module, which)["default"].weight
        for module in model.modules()
        if hasattr(module, "lora_A")
        for which in ("lora_A", "lora_B")
    ]


@pytest.mark.parametrize("start", ["zero", "paper"])
def test_gradient_is_the_chain_rule_through_loras(
    qpa: Any, start: str, tiny: Any, ids: Any
) -> None:
    """The generator's gradient is its Jacobian, transposed, times LoRA's own gradient."""
    method = qpa(start=start)
    model: Any = method.adapt(tiny(), 3)
    model(input_ids=ids, labels=ids).loss.backward()

    alone: Any = Lora.from_settings({}).adapt(tiny(), 3)
    weights = Lora.from_settings({}).trainable(alone)
    with torch.no_grad():
        for parameter, value in zip(weights.values(), lora_weights(model), strict=True):
            parameter.copy_(value)
    alone(input_ids=ids, labels=ids).loss.backward()
    wanted = torch.cat([value.grad.flatten() for value in weights.values()])  # type: ignore[union-attr]

    source = generators_of(model).sources[0]  # type: ignore[union-attr]
    generator = copy.deepcopy(source.generator)
    generator.zero_grad()
    (generator() @ wanted).backward()
    for (name, value), expected in zip(
        source.generator.named_parameters(), generator.parameters(), strict=True
    ):
        torch.testing.assert_close(value.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_generates_once_for_a_pass_and_for_a_block(
    qpa: Any, tiny: Any, ids: Any, passes: list[bool]
) -> None:
    method = qpa()
    model: Any = method.adapt(tiny(), 3)
    passes.clear()
    with torch.no_grad():
        for _ in range(3):
            model.eval()(input_ids=ids)
    assert passes == 3 * [False]

    passes.clear()
    with method.frozen(model):
        with torch.no_grad():
            model(input_ids=ids)
        with torch.inference_mode():
            model(input_ids=ids)
        model.generate(input_ids=ids[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert passes == [False]

    passes.clear()
    for _ in range(2):
        model.train()(input_ids=ids, labels=ids).loss.backward()
    assert passes == [True, True]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITES)
def test_every_write_is_in_the_next_output(
    qpa: Any, kind: dict[str, Any], write: str, tiny: Any, logits: Any
) -> None:
    method = qpa(**kind)
    model: Any = method.adapt(tiny(), 3)
    before = logits(model)
    WRITES[write](list(method.trainable(model).values()))
    after = logits(model)
    assert not torch.equal(before, after)
    plain = method.adapt(tiny(), 3)
    with torch.no_grad():
        for name, value in method.trainable(plain).items():
            value.copy_(method.trainable(model)[name])
    assert torch.equal(logits(plain), after)
    # Reads outside a pass follow too, and so does what is saved.
    with settled(model):
        assert torch.equal(logits(model), after)


def test_a_failed_pass_leaves_nothing_behind(qpa: Any, tiny: Any, ids: Any, logits: Any) -> None:
    method = qpa()
    model: Any = method.adapt(tiny(), 3).train()
    with pytest.raises(IndexError):
        model(input_ids=ids + 10_000)
    WRITES["data"](list(method.trainable(model).values()))
    expected = logits(model)
    with settled(model):
        assert torch.equal(logits(model), expected)


def test_what_inference_mode_generated_is_in_nobodys_way(
    qpa: Any, tiny: Any, ids: Any, logits: Any
) -> None:
    method = qpa()
    model: Any = method.adapt(tiny(), 3)
    with torch.inference_mode():
        model.eval()(input_ids=ids)
    model.train()(input_ids=ids, labels=ids).loss.backward()
    with torch.inference_mode():
        expected = model.eval()(input_ids=ids).logits
    with torch.enable_grad():  # in evaluation mode too
        model(input_ids=ids, labels=ids).loss.backward()
    torch.testing.assert_close(logits(method.merge(model)), expected.clone(), rtol=1e-4, atol=1e-5)


def test_two_passes_before_one_backward(qpa: Any, tiny: Any, ids: Any) -> None:
    gradients = []
    for together in (False, True):
        method = qpa()
        model: Any = method.adapt(tiny(), 3)
        losses = []
        for row in ids:
            losses.append(model(input_ids=row[None], labels=row[None]).loss)
            if not together:
                losses[-1].backward()
        if together:
            losses[0].backward()
            losses[1].backward()
        gradients.append([value.grad for value in method.trainable(model).values()])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_generates_once(
    qpa: Any, kind: dict[str, Any], tiny: Any, ids: Any, passes: list[bool]
) -> None:
    base = tiny()
    new = getattr(base, "activation_checkpointing_enable", None)  # its name in transformers 5.2x
    (new or base.gradient_checkpointing_enable)({"use_reentrant": False})
    method = qpa(**kind)
    model: Any = method.adapt(base, 3).train()
    passes.clear()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    assert len(passes) == (1 if kind["generators"] == "model" else 4)
    found = {name: value.grad for name, value in method.trainable(model).items()}
    plain: Any = method.adapt(tiny(), 3).train()
    plain(input_ids=ids, labels=ids).loss.backward()
    expected = {name: value.grad for name, value in method.trainable(plain).items()}
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_has_a_life_of_its_own(
    qpa: Any, kind: dict[str, Any], train: Any, logits: Any, ids: Any, tiny: Any
) -> None:
    run = train(qpa(**kind), steps=2)
    run.model.train()(input_ids=ids)  # so that there are weights with a graph
    before = logits(run.model)
    run.model.train()(input_ids=ids)
    twin = copy.deepcopy(run.model)
    assert torch.equal(logits(twin), before)
    with torch.no_grad():
        for value in run.method.trainable(twin).values():
            value.mul_(1.1)
    assert not torch.equal(logits(twin), before)
    assert torch.equal(logits(run.model), before)
    expected = logits(twin)
    merged = run.method.merge(twin)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert type(merged) is type(tiny())
    assert not merged._forward_pre_hooks
    assert not merged._forward_hooks
    assert torch.equal(logits(run.model), before)
    run.model.train()(input_ids=ids, labels=ids).loss.backward()


def test_names_stay_those_that_a_checkpoint_has(qpa: Any, tiny: Any) -> None:
    method = qpa(generators="module")
    models = [method.adapt(tiny(), seed) for seed in (1, 2)]
    names = [list(method.trainable(model)) for model in models]
    assert names[0] == names[1]
    assert set(names[0]) == {
        name for name, value in models[0].named_parameters() if value.requires_grad
    }
    assert not set(names[0]) & {name for name, _ in tiny().named_parameters()}
    groups = [{id(value) for value in source.parameters()} for source in sources(models[0])]
    assert len(groups) == 4
    assert len(set.union(*groups)) == sum(map(len, groups))


def sources(model: nn.Module) -> list[Source]:
    generators = generators_of(model)
    assert isinstance(generators, Generators)
    return [source for source in generators.sources if isinstance(source, Source)]


def test_switched_off_it_is_the_base(
    qpa: Any, train: Any, tiny: Any, ids: Any, logits: Any
) -> None:
    run = train(qpa(), steps=2)
    with run.model.disable_adapter():
        assert torch.equal(logits(run.model), logits(tiny()))
    run.model.train()(input_ids=ids, labels=ids).loss.backward()
    trained = {name for name, value in run.model.named_parameters() if value.grad is not None}
    assert trained == set(run.trainable)


class Past(nn.Module):
    """Reads its weight past the attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * next(iter(self.parameters()))


def test_weights_that_nothing_reads_are_an_error() -> None:
    model = Past()

    def make(count: int, name: str) -> WeightGenerator:
        made = WeightGenerator(count, 2, 1)
        made.reset(torch.Generator().manual_seed(0))
        return made

    generate(model, model, {"": [model.weight]}, make, relative=True, seed=0)
    with pytest.raises(BenchError, match="Nothing read the generated weights"):
        model(torch.ones(4))


class Twice(nn.Module):
    """Two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.two(self.one(x))
        return first


def test_a_shared_weight_is_generated_once() -> None:
    model = Twice()

    def make(count: int, name: str) -> WeightGenerator:
        assert count == 16
        made = WeightGenerator(count, 2, 1)
        made.reset(torch.Generator().manual_seed(0))
        return made

    generate(model, model, {"": [model.one.weight]}, make, relative=False, seed=0)
    assert model.one.weight.abs().max() > 0
    assert torch.equal(model.one.weight, model.two.weight)
    with settled(model):
        assert model.one.weight is model.two.weight
    assert torch.equal(model.one.weight, model.two.weight)
    assert not torch.equal(model.one.weight, torch.zeros(4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner": "lroa"}, "there is no method 'lroa'.*'lora'"),
        ({"inner": "full"}, "'full' has no adapter made by peft"),
        (
            {
                "inner": "peft",
                "settings": {"type": "PREFIX_TUNING", "settings": {"num_virtual_tokens": 3}},
            },
            "'peft' learns a prompt",
        ),
        ({"settings": {"r": 0}}, "'lora' refused: r"),
        ({"settings": {"rank": 8}}, "'lora' has no setting 'rank'"),
        ({"shots": 10}, "shots=10: the backend 'engine' is exact"),
        ({"backend": "qiskit"}, "backend"),
        ({"chunk": 0}, "chunk"),
        ({"generators": "layer"}, "generators"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Qpa.from_settings(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {"target_modules": ["q_prj"]}}, "'q_prj'.*'q_proj'"),
        ({"backend": "pennylane:no.such"}, "no device 'no.such'"),
    ],
)
def test_settings_that_do_not_fit(
    qpa: Any, options: dict[str, Any], message: str, tiny: Any
) -> None:
    with pytest.raises(UsageError, match=message):
        qpa(**options).adapt(tiny(), 0)


def test_inner_methods_are_found_where_they_are_registered(monkeypatch: Any) -> None:
    assert isinstance(inner_method("lora", {"r": 2}), Lora)
    point = SimpleNamespace(name="mine", load=lambda: Lora)
    assert METHODS in metadata.entry_points().groups
    monkeypatch.setattr("baselines.qpa.inner.entry_points", lambda group: [point])
    assert inner_method("mine", {"r": 2}).config.r == 2


def test_claims_are_the_inner_methods(qpa: Any) -> None:
    qv = {"target_modules": ["q_proj", "v_proj"]}
    assert all((qpa().mergeable, qpa().exact_start, qpa().cacheable))
    lily = qpa(inner="peft", settings={"type": "LILY", "settings": qv})
    assert lily.mergeable == Claim(False, peft_types.UNMERGEABLE["LILY"])
    vblora = qpa(inner="peft", settings={"type": "VBLORA", "settings": qv})
    assert vblora.exact_start == Claim(False, peft_types.INEXACT["VBLORA"])
    with pytest.raises(BenchError, match="'qpa' cannot be merged: its update depends on the input"):
        lily.merge(nn.Identity())


def test_sizes_grow_with_the_chunk(tiny: Any) -> None:
    counts = [
        sum(value.numel() for value in method.trainable(method.adapt(tiny("meta"), 0)).values())
        for method in (Qpa.from_settings(options) for options in Qpa.sizes(tiny("meta")))
    ]
    assert counts == sorted(counts)
    assert counts[0] < 40_000
    assert counts[-1] > 2_000_000
