"""QTHA against a closed form of its circuit, PennyLane, and counts."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from baselines.lora import Lora
from baselines.qtha import Qtha, QthaAdapter, QthaConfig
from baselines.quantum import QuantumNetwork
from quanta_bench.method import BenchError, UsageError

MODELS = {
    "embedded": {  # SmolLM2-135M
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "paper": {  # LLaMA2-7B
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
}


def part(
    in_features: int = 12, out_features: int = 18, seed: int = 0, **fields: Any
) -> QthaAdapter:
    """A part away from its start, in double precision."""
    made = QthaAdapter(QthaConfig(**fields), in_features, out_features, "m").double()
    generator = torch.Generator().manual_seed(seed)
    made.reset(generator)
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return made


def vectors(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("entangler", ["chain", "none"])
@pytest.mark.parametrize("scaling", ["tanh", "none"])
@pytest.mark.parametrize(("qubits", "cores", "rank"), [(4, 3, 2), (3, 1, 1), (1, 2, 3)])
def test_forward_is_the_formula(
    entangler: str, scaling: str, qubits: int, cores: int, rank: int
) -> None:
    fields = {"qubits": qubits, "cores": cores, "rank": rank, "alpha": 3.0}
    made = part(**fields, entangler=entangler, scaling=scaling)
    x = vectors(2, 5, 12)
    z = x @ made.down.matrix().mT
    # Rotations about one axis add up; after the CNOTs of a chain, <Z_k> is the product of the
    # cosines up to k.
    angles = (math.pi * z.tanh() if scaling == "tanh" else z) + made.angles[0, :, 0]
    q = angles.cos().cumprod(-1) if entangler == "chain" else angles.cos()
    h = made.classical * z + made.quantum * q
    expected = 3.0 / qubits * h @ made.up.matrix().mT
    torch.testing.assert_close(made(x), expected, rtol=0, atol=1e-12)


def test_update_is_not_linear() -> None:
    made, x = part(), vectors(12)
    assert (made(2 * x) - 2 * made(x)).abs().max() > 1e-3
    assert (made(torch.zeros(12, dtype=torch.float64))).abs().max() > 1e-3


def test_every_parameter_is_trained_by_the_loss() -> None:
    made = part(depth=2, rotations=("rz", "ry"))
    made(vectors(3, 12)).square().sum().backward()
    for name, value in made.named_parameters():
        assert value.grad is not None, name
        assert (value.grad != 0).all(), name


@pytest.mark.parametrize("angle_start", ["uniform", "zero"])
def test_starts(angle_start: str) -> None:
    fields = {"angle_start": angle_start, "classical_weight": 0.5, "quantum_weight": 2.0}
    made = QthaAdapter(QthaConfig(qubits=8, depth=4, **fields), 512, 64, "m")
    made.reset(torch.Generator().manual_seed(0))
    x = vectors(400, 512).float()
    assert not made(x).any()
    assert made.classical.unique().tolist() == [0.5]
    assert made.quantum.unique().tolist() == [2.0]
    # Inputs of size 1 give z of size 1, over starts of A.
    sizes = []
    for seed in range(40):
        made.reset(torch.Generator().manual_seed(seed))
        sizes.append(made.down(x).square().mean())
    assert 0.5 < torch.stack(sizes).mean() < 2
    if angle_start == "zero":
        assert not made.angles.any()
    else:
        assert made.angles.abs().max() <= math.pi
        assert 1.3 < made.angles.std() < 2.3  # pi / sqrt(3) = 1.81


def test_all_tokens_go_through_the_network_at_once(
    tiny: Any, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    whole = QuantumNetwork.expectations

    def record(self: QuantumNetwork, angles: Tensor, encoded: Tensor | None = None) -> Tensor:
        assert encoded is not None
        shapes.append(tuple(encoded.shape))
        return whole(self, angles, encoded)

    monkeypatch.setattr(QuantumNetwork, "expectations", record)
    Qtha.from_settings({"qubits": 5}).adapt(tiny(), seed=0)(input_ids=ids)
    assert shapes == [(*ids.shape, 5)] * 4  # two layers of q and v


def test_modes_are_given_or_even() -> None:
    config = QthaConfig(qubits=4, cores=2, modes=[(3, 4), (4, 1), (1, 18)])
    made = QthaAdapter(config, 12, 20, "m")
    assert (made.down.out_modes, made.down.in_modes) == ((4, 1), (3, 4))
    assert (made.up.out_modes, made.up.in_modes) == ((5, 4), (4, 1))
    assert QthaAdapter(config, 12, 18, "m").up.out_modes == (1, 18)


def test_shape_of_any_width() -> None:
    made = part(13, 7, qubits=3)
    assert made(vectors(2, 13)).shape == (2, 7)


def test_autocast_trains_float32_angles() -> None:
    made = part().float()
    x = vectors(4, 12).float()
    expected = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(x)
        assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)
    found.float().sum().backward()
    assert made.angles.grad is not None
    assert made.angles.grad.dtype is torch.float32


def test_float64_base_has_a_float64_adapter(tiny: Any, ids: Tensor) -> None:
    method = Qtha.from_settings({})
    model = get_peft_model(tiny(dtype=torch.float64), method.peft_config(0))
    for name, value in model.named_parameters():
        assert value.dtype is torch.float64, name
    assert model(input_ids=ids).logits.dtype is torch.float64


def test_merge_says_why_not(tiny: Any, train: Any) -> None:
    run = train(Qtha.from_settings({}), steps=1)
    with pytest.raises(BenchError, match="cannot be merged: QTHA computes a nonlinear function"):
        run.method.merge(run.model)
    with pytest.raises(ValueError, match="nonlinear function"):
        run.model.merge_and_unload()
    assert run.method.ranks(run.model) == {}


@pytest.mark.parametrize("profile", ["embedded", "paper"])
def test_rows_have_76_percent_fewer_parameters_than_lora(profile: str) -> None:
    counts = []
    for method in (
        Qtha.from_settings(Qtha.rows[profile].config),
        Lora.from_settings({"r": 8, "target_modules": ["q_proj", "v_proj"]}),
    ):
        with torch.device("meta"):
            base = LlamaForCausalLM(LlamaConfig(**MODELS[profile], tie_word_embeddings=True))
        adapted = method.adapt(base, seed=0)
        counts.append(sum(value.numel() for value in method.trainable(adapted).values()))
    assert counts == {"embedded": [109_500, 460_800], "paper": [1_014_528, 4_194_304]}[profile]
    assert round(100 * (1 - counts[0] / counts[1])) == 76
    assert f"{counts[0]:,} to {counts[1]:,}" in Qtha.rows[profile].origin["rank"]


def test_sizes_grow(tiny: Any) -> None:
    counts = []
    for size in Qtha.sizes(tiny("meta")):
        method = Qtha.from_settings(size)
        if size["rank"] > 8:
            break
        trained = method.trainable(method.adapt(tiny("meta"), seed=0))
        counts.append(sum(value.numel() for value in trained.values()))
    assert len(counts) == 8
    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "rank=0"),
        ({"cores": 0}, "cores=0"),
        ({"qubits": 0}, "qubits=0"),
        ({"depth": -1}, "depth=-1"),
        ({"rotations": []}, "rotations"),
        ({"entangler": "star"}, "entangler='star'"),
        ({"encoding": "rz"}, "encoding='rz'"),
        ({"scaling": "sin"}, "scaling='sin': Input should be 'tanh' or 'none'"),
        ({"angle_start": "one"}, "angle_start='one'"),
        ({"alpha": math.inf}, "alpha=inf: inf is not a finite number"),
        ({"quantum_weight": True}, "quantum_weight=True"),
        ({"modes": [(4, 3)]}, r"modes=.* has \[4, 3\]; give 3 sizes"),
        ({"modes": [(4, 3, 0)]}, "modes"),
        ({"modes": [(4, 3, 1.5)]}, "modes"),
        ({"backend": "engin"}, "backend='engin' is neither"),
        ({"shots": 100}, "shots=100: the backend 'engine' is exact"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"QthaConfig: {message}"):
        QthaConfig(**fields)


def test_bad_settings_are_usage_errors(tiny: Any) -> None:
    for settings, words in (
        ({"shots": 5}, "shots=5"),
        ({"backend": "pennylane"}, "backend='pennylane'"),
        ({"modes": [[4, 3]]}, "modes"),
    ):
        with pytest.raises(UsageError, match=words):
            Qtha.from_settings(settings).adapt(tiny(), seed=0)


class TestPennyLane:
    """The same adapter on a device of PennyLane."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("pennylane")

    @pytest.mark.parametrize(
        "fields",
        [
            {"depth": 2, "rotations": ("rz", "ry"), "entangler": "ring"},
            {"encoding": "rx", "entangler": "none", "depth": 0},
        ],
    )
    def test_gives_what_the_engine_gives(self, fields: dict[str, Any]) -> None:
        made, other = part(**fields), part(**fields, backend="pennylane:default.qubit")
        other.load_state_dict(made.state_dict())
        x = vectors(2, 3, 12)
        torch.testing.assert_close(other(x), made(x), rtol=0, atol=1e-10)

    def test_shots_train_save_and_copy(self, tiny: Any, ids: Tensor, tmp_path: Any) -> None:
        settings = {"qubits": 2, "backend": "pennylane:default.qubit", "shots": 20}
        method = Qtha.from_settings({**settings, "layers_to_transform": (0,)})
        model: nn.Module = method.adapt(tiny(), seed=3).train()
        optimizer = torch.optim.SGD(method.trainable(model).values(), lr=1.0)
        for _ in range(2):  # the first step moves only the last core of B
            optimizer.zero_grad()
            model(input_ids=ids[:, :3], labels=ids[:, :3]).loss.backward()
            optimizer.step()
        assert all(value.grad.any() for value in method.trainable(model).values())
        method.save(model, tmp_path)
        loaded = method.load(tiny(), tmp_path)
        assert isinstance(loaded, PeftModel)
        again = copy.deepcopy(loaded)
        with torch.no_grad():
            assert torch.equal(loaded(input_ids=ids).logits, again(input_ids=ids).logits)
