"""The plan of the paper's Table 3: made without weights or a hub, and true to the paper."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from rich.console import Console

from quanta_bench.cli import plan as plan_screen
from quanta_bench.costs import plan as plans
from quanta_bench.costs.plan import DEFAULT, METHOD_DEFAULT, Plan, PlanRow, Setting, agrees
from quanta_bench.errors import UsageError
from quanta_bench.suites.choice import Choice
from quanta_bench.suites.loading import load_suite
from quanta_bench.suites.request import Request
from quanta_bench.suites.schema import Profile, RowSpec, Suite

UNREPRODUCIBLE = {
    ("huggyllama/llama-7b", "Prefix"),
    ("huggyllama/llama-13b", "Prefix"),
    ("meta-llama/Meta-Llama-3-8B", "DoRA r=16"),
    ("meta-llama/Meta-Llama-3-8B", "QuanTA 16-8-8-4"),
}
TABLE_E3 = {
    # The paper's Table E.3, the columns for COMMONSENSE170K.
    "full": {"batch_size": 4, "learning_rate": 1e-5},
    "quanta": {"batch_size": 4, "learning_rate": 5e-5},
}


def make(choice: Choice, profile: str = "paper") -> Plan:
    suite = load_suite("3")
    return plans.make_plan(Request.of(suite, profile, choice))


@pytest.fixture(scope="module")
def paper() -> Plan:
    """The whole plan, made where every attempt to reach a network fails and no weight is read."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a plan needs neither network nor weights")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr("quanta_bench.models.loading.load_model", refuse)
        patch.setattr("safetensors.torch.load_file", refuse)
        patch.setattr("quanta_bench.sources.rows.DataSource.rows", refuse)
        return make(Choice())


def drawn(plan: Plan) -> str:
    console = Console(width=220)
    with console.capture() as captured:
        console.print(plan_screen.on_screen(plan))
    return captured.get()


def by_name(settings: list[Setting]) -> dict[str, Setting]:
    return {setting.name: setting for setting in settings}


def available(plan: Plan) -> list[PlanRow]:
    return [row for row in plan.rows if not row.missing]


def test_every_printed_share_agrees_save_those_that_nothing_reproduces(paper: Plan) -> None:
    assert len(paper.rows) == 26
    for row in available(paper):
        assert row.trainable is not None
        assert row.percent is not None
        assert row.printed
        if (row.model, row.label) in UNREPRODUCIBLE:
            assert row.verdict == "known-ambiguous"
            assert row.ambiguity
            assert not agrees(row.percent, row.printed)
        else:
            assert row.ambiguity == ""
            assert row.verdict == "agrees", (row.model, row.label, row.percent, row.printed)


def test_two_counts_by_hand(paper: Plan) -> None:
    counts = {(row.model, row.label): row for row in paper.rows}
    # Six two-axis gates a layer, on q and v of 32 layers.
    axes = (16, 8, 8, 4)
    pairs = sum((axes[i] * axes[j]) ** 2 for i in range(4) for j in range(i))
    quanta = counts["huggyllama/llama-7b", "QuanTA 16-8-8-4"]
    assert quanta.trainable == 32 * 2 * pairs
    # LoRA: r (in + out) for q, k, v (4096 each) and up, down (4096 and 11008).
    lora = counts["huggyllama/llama-7b", "LoRA r=32"]
    assert lora.trainable == 32 * 32 * (3 * 2 * 4096 + 2 * (4096 + 11008))
    base = 6_738_415_616
    assert lora.percent == pytest.approx(100 * lora.trainable / (base + lora.trainable))


def test_a_row_of_a_method_that_is_not_installed_is_refused() -> None:
    suite = load_suite("3")
    paper = suite.profiles["paper"]
    rows = (paper.rows[0], paper.rows[0].model_copy(update={"method": "brand_new"}))
    profile = paper.model_copy(update={"rows": rows})
    suite = suite.model_copy(update={"profiles": {"paper": profile}})
    with pytest.raises(UsageError, match="'brand_new', which is not registered"):
        plans.make_plan(Request.of(suite, "paper"))


def test_quoted_rows_are_marked(paper: Plan) -> None:
    own = {(row.model, row.label) for row in paper.rows if not row.quoted}
    assert {label.split()[0] for _, label in own} == {"FT", "LoRA", "QuanTA"}
    assert [model for model, label in own if label.startswith("LoRA")] == [
        "meta-llama/Llama-2-13b-hf"
    ]
    assert {row.quoted for row in paper.rows} == {"", "LLM-Adapters", "DoRA"}


def test_the_disputed_test_set_and_the_split_are_noted(paper: Plan) -> None:
    (siqa,) = (note for note in paper.notes if "SIQA" in note)
    assert "508" in siqa
    assert "1,954" in siqa
    assert any("170,020" in note and "400" in note for note in paper.notes)


def test_every_hyper_parameter_of_table_e3_has_its_value_and_an_origin(paper: Plan) -> None:
    asked = {"learning_rate", "batch_size", "epochs", "weight_decay", "schedule", "tasks", "seeds"}
    for row in available(paper):
        settings = {setting.name: setting for setting in row.training}
        for name in asked | {"loss", "protocol", "validations", "warmup", "clip_norm"}:
            assert settings[name].origin not in ("", DEFAULT), (row.model, row.label, name)
        for setting in row.settings:
            assert setting.origin not in ("", DEFAULT), (row.model, row.label, setting.name)
        for name, value in TABLE_E3.get(row.method, {}).items():
            assert settings[name].value == value
            assert "paper Table E.3" in settings[name].origin
        assert settings["weight_decay"].value == 0
        assert settings["schedule"].value == "linear"


def test_rows_from_elsewhere_name_their_own_source_for_every_value(paper: Plan) -> None:
    inherited = {"tasks", "protocol", "seeds"}
    rows = [row for row in paper.rows if row.method in ("lora", "dora")]
    assert len(rows) == 5 + 8
    for row in rows:
        # The paper's own LoRA row has no column in Table E.3.
        source = row.quoted or "LLM-Adapters"
        for setting in [*row.settings, *row.training]:
            if setting.origin == DEFAULT or setting.name in inherited:
                continue
            where = (row.model, row.label, setting)
            assert "paper Table E." not in setting.origin, where
            assert "QuanTA" not in setting.origin, where
            # That table is of DoRA alone.
            assert row.method == "dora" or "Table 8" not in setting.origin, where
            assert source in setting.origin or "printed share" in setting.origin, where
            if not row.quoted and setting.name in ("learning_rate", "batch_size", "epochs"):
                assert setting.origin.startswith("our choice"), where


def test_rows_from_elsewhere_train_as_their_scripts_do(paper: Plan) -> None:
    steps = 3 * 170_020 / 16
    for row in paper.rows:
        if row.method not in ("lora", "dora"):
            continue
        settings = by_name([*row.settings, *row.training])
        assert settings["dropout"].value == 0.05
        assert settings["alpha"].value == 2 * settings["r"].value
        assert round(settings["warmup"].value * steps) == 100
        assert settings["validations"].value == 20
        assert settings["validations"].origin.startswith("our choice: every 25,503 of 510,060")
        assert settings["max_length"].value == 256


@pytest.mark.parametrize(
    ("model", "rank", "rate"),
    [
        # Table 8 of the DoRA paper.
        ("huggyllama/llama-7b", 16, 2e-4),
        ("huggyllama/llama-7b", 32, 1e-4),
        ("huggyllama/llama-13b", 16, 3e-4),
        ("huggyllama/llama-13b", 32, 2e-4),
        ("meta-llama/Llama-2-7b-hf", 16, 2e-4),
        ("meta-llama/Llama-2-7b-hf", 32, 2e-4),
        ("meta-llama/Meta-Llama-3-8B", 16, 1e-4),
        ("meta-llama/Meta-Llama-3-8B", 32, 1e-4),
    ],
)
def test_doras_learning_rates(paper: Plan, model: str, rank: int, rate: float) -> None:
    (row,) = (row for row in paper.rows if (row.model, row.label) == (model, f"DoRA r={rank}"))
    assert by_name(row.training)["learning_rate"].value == rate
    assert by_name(row.settings)["r"].value == rank


def test_the_whole_configuration_is_shown(paper: Plan) -> None:
    quanta = by_name(next(row.settings for row in paper.rows if row.method == "quanta"))
    assert quanta["dims"] == Setting(name="dims", value=[16, 8, 8, 4], origin="paper Table E.3")
    assert quanta["dropout"] == Setting(name="dropout", value=0.0, origin="paper Table E.3")
    assert quanta["recompute"] == Setting(name="recompute", value="auto", origin=METHOD_DEFAULT)
    small = by_name(make(Choice(methods=("quanta",)), "embedded").rows[0].settings)
    assert small["target_modules"].origin == METHOD_DEFAULT
    lora = by_name(make(Choice(methods=("lora",)), "embedded").rows[0].settings)
    assert lora["r"].origin == lora["target_modules"].origin == "our choice"
    assert lora["dropout"] == Setting(name="dropout", value=0.0, origin=METHOD_DEFAULT)


def test_a_method_with_a_required_setting_is_planned() -> None:
    row = RowSpec(method="peft", settings={"type": "vera"})
    suite = Suite(name="own", tasks=("boolq",), profiles={"embedded": Profile(rows=(row,))})
    made = plans.make_plan(Request.of(suite, "embedded"))
    assert by_name(made.rows[0].settings)["type"].origin == DEFAULT


def test_a_rows_own_settings_do_not_inherit_an_origin() -> None:
    row = RowSpec(method="lora", settings={"r": 4, "alpha": 16}, origin={"settings": "mine"})
    suite = Suite(name="own", tasks=("boolq",), profiles={"embedded": Profile(rows=(row,))})
    made = plans.make_plan(Request.of(suite, "embedded"))
    settings = by_name(made.rows[0].settings)
    assert settings["r"].origin == "mine"
    assert settings["alpha"].origin == "our choice"  # the default row's value, and its origin


def test_the_public_scripts_epochs_and_evaluations(paper: Plan) -> None:
    quanta = next(row for row in paper.rows if row.method == "quanta")
    settings = {setting.name: setting.value for setting in quanta.training}
    # 5 passes over 170,020 items, evaluated every 25,000 items.
    assert settings["epochs"] == 5
    assert settings["validations"] == 5 * 170_020 // 25_000


def test_runs_are_counted_without_rows_that_cannot_run(paper: Plan) -> None:
    assert f"{2 * len(available(paper))} runs." in paper.notes


def test_on_screen_and_back(paper: Plan) -> None:
    text = drawn(paper)
    for words in ("known-ambiguous", "quoted from DoRA", "paper Table E.3"):
        assert words in text
    for row in paper.rows:
        if row.ambiguity:
            assert f"{row.label} ({row.model}): known-ambiguous: {row.ambiguity}" in text
    assert Plan.model_validate_json(paper.model_dump_json()) == paper


def test_every_row_of_the_paper_has_an_estimate_and_what_it_rests_on(paper: Plan) -> None:
    hours = 0.0
    for row in available(paper):
        assert row.cost is not None, row.not_estimated
        hours += len(row.seeds) * row.cost.gpu_hours
    assert paper.gpu == "a100-80gb"
    assert paper.gpu_hours == pytest.approx(hours)
    text = " ".join(drawn(paper).split())
    for words in ("GPU-hours", "40% of the arithmetic", "assumed", "boolq 34.1 + 2 x 6"):
        assert words in text
    # Models of up to 13 billion parameters, as where the paper ran them.
    assert {row.cost.gpus for row in available(paper) if row.cost} == {1}
    full = next(row for row in paper.rows if row.method == "full")
    assert full.cost is not None
    assert (full.cost.recomputed, full.cost.optimizer) == (True, "adamw-8bit")
    assert "4 of 4, recomputed" in text


def test_a_row_that_does_not_fit_says_how_many_gpus_it_needs() -> None:
    training = {"tasks": ["boolq"], "train_items": 10, "validation_items": 10}
    row = RowSpec(method="lora", training=training)
    profile = Profile(model="llama2-70b", model_source="hub", rows=(row,))
    suite = Suite(name="own", tasks=("boolq",), profiles={"paper": profile})
    text = " ".join(drawn(plans.make_plan(Request.of(suite, "paper"))).split())
    assert "needs the memory of 2 GPUs of a100-80gb at least, an item at a time with" in text


def test_a_row_without_an_estimate_says_why() -> None:
    row = RowSpec(method="lora", training={"tasks": ["none_such"]})
    profile = Profile(model="llama2-7b", model_source="hub", rows=(row,))
    suite = Suite(name="own", tasks=("boolq",), profiles={"paper": profile})
    made = plans.make_plan(Request.of(suite, "paper"))
    assert made.rows[0].cost is None
    assert made.gpu_hours is None
    assert "no estimate: the lengths of the task 'none_such'" in " ".join(drawn(made).split())


def test_a_model_of_the_users_own_is_planned_without_a_count() -> None:
    made = make(Choice(model="local:somewhere", methods=("quanta",), seeds=(0,)))
    assert {row.trainable for row in made.rows} == {None}
    assert all(row.not_counted for row in made.rows)
    assert all("counted" not in setting.origin for row in made.rows for setting in row.settings)
    text = " ".join(drawn(made).split())
    assert f"parameters not counted: {made.rows[0].not_counted}" in text


def test_the_embedded_plan_counts_and_names_its_size() -> None:
    made = make(Choice(), "embedded")
    by_method = {row.method: row for row in made.rows}
    assert by_method["none"].trainable == 0
    assert by_method["none"].seeds == [0, 1]
    assert by_method["full"].trainable == 134_515_008
    assert by_method["full"].percent == 100
    # LoRA r=8: 30 layers, q 576 to 576, v 576 to 192.
    assert by_method["lora"].trainable == 30 * 8 * (576 + 576 + 576 + 192)
    assert any(note.startswith("Size 'small'.") for note in made.notes)
    # It needs no GPU, so nothing is said of one.
    assert {row.cost for row in made.rows} == {None}
    assert "GPU" not in drawn(made)
    full = make(Choice(size="full", methods=("none",)), "embedded")
    assert any(note.startswith("Size 'full'.") for note in full.notes)


@pytest.mark.parametrize(
    ("percent", "printed", "same"),
    [
        (0.04083, "0.041%", True),
        (0.0404, "0.041%", False),
        (99.6, "100%", True),
        (0.8256, "0.83%", True),
        (0.8256, "0.826%", True),
        (0.8256, "0.8%", True),
        (0.361, "0.35%", False),
    ],
)
def test_agreement_is_at_the_printed_precision(percent: float, printed: str, same: bool) -> None:
    assert agrees(percent, printed) is same


def test_what_the_command_line_gives_has_its_origin_there() -> None:
    choice = Choice(
        methods=("lora",), seeds=(3,), settings={"training.epochs": 2, "training.batch_size": 8}
    )
    settings = by_name(make(choice, "embedded").rows[0].training)
    assert (settings["seeds"].value, settings["seeds"].origin) == ([3], "the command line")
    assert settings["epochs"].origin == "--set"
    assert settings["schedule"].origin == DEFAULT
    untouched = by_name(make(Choice(methods=("lora",)), "embedded").rows[0].training)
    assert untouched["seeds"].origin == untouched["epochs"].origin == DEFAULT


def test_how_a_plan_is_scored_is_in_words() -> None:
    text = " ".join(drawn(make(Choice(methods=("lora",)), "embedded")).split())
    assert (
        "openbookqa: 25 items a task; split test; protocol choice-text; "
        "forgetting running_text; forgetting items 10. ·"
    ) in text
    every = make(Choice(methods=("lora",), settings={"evaluation.max_length": 256}), "embedded")
    every.evaluation["items"] = {"boolq": 25, "piqa": None}
    text = " ".join(drawn(every).split())
    assert "25 (boolq), all (piqa) items a task; split test" in text
    assert "; max length 256;" in text
    assert "{" not in text


def test_every_column_of_a_plan_has_a_heading() -> None:
    """Also in the second of the blocks that a narrow screen makes of a wide table."""
    made = make(Choice(methods=("lora",), models=("llama2-7b",)))
    console = Console(width=80)
    with console.capture() as captured:
        console.print(plan_screen.on_screen(made))
    blocks = captured.get().partition("\nSetting ")[0].split("\n\n")
    rules = [block.index("\n─") for block in blocks[:2]]
    for block, rule in zip(blocks, rules, strict=False):
        assert "Model" in block[:rule]
    (verdicts,) = (block for block in blocks if "agrees" in block)
    heading, body = verdicts[: verdicts.index("\n─")].splitlines()[-1], verdicts.splitlines()
    line = next(line for line in body if " agrees " in line)
    assert line.index("agrees") == heading.index("Verdict")


def test_a_plan_shows_what_rows_share_once_and_no_empty_column() -> None:
    made = make(Choice(methods=("none", "lora", "quanta")), "embedded")
    text = drawn(made)
    assert "Verdict" not in text
    assert "Printed" not in text
    shared, *own = text.split("All trained rows", 1)[1].split("\nScored on")[0].split("\n\n")
    assert "batch_size" in shared
    assert len(own) == 2
    for group, label in zip(own, ("LoRA r=8", "QuanTA 6-6-4-4"), strict=True):
        assert group.strip().startswith(label)
        assert "learning_rate" in group
        assert "batch_size" not in group
