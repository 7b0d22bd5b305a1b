"""A third-party package, made of CONTRIBUTING's worked examples, in an environment of its own."""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from paths import ROOT
from transformers import AutoModelForCausalLM

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(
    re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", CONTRIBUTING, re.MULTILINE | re.DOTALL)
)
CONCEPTS = ["cow", "cat", "duck", "dog", "hen"]
CALLS = ["moo", "meow", "quack", "woof", "cluck"]


def wheel(folder: Path) -> Path:
    """The wheel that a build backend makes of the package: its modules and its entry points.

    Written out here, since a test has no network to fetch a build backend from.
    """
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    module = project["name"].replace("-", "_")
    stem = f"{module}-{project['version']}"
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in lines.items())
        for group, lines in project["entry-points"].items()
    )
    content = {
        f"{module}/__init__.py": "",
        **{f"{module}/{name}": text for name, text in FILES.items() if name.endswith(".py")},
        f"{stem}.dist-info/METADATA": (
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
            + "".join(f"Requires-Dist: {name}\n" for name in project["dependencies"])
        ),
        f"{stem}.dist-info/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
        f"{stem}.dist-info/entry_points.txt": points,
    }
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
        archive.writestr(f"{stem}.dist-info/RECORD", "".join(f"{name},,\n" for name in content))
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a temporary environment: this one's packages, and the plug-in installed."""
    root = tmp_path_factory.mktemp("plugin")
    folder = root / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    found = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = Path(
        sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    )
    # addsitedir reads the .pth files of the packages that are installed editable, too.
    here = [*site.getsitepackages(), sysconfig.get_path("purelib")]
    lines = [f"import site; site.addsitedir({path!r})" for path in dict.fromkeys(here)]
    (packages / "these.pth").write_text("\n".join(lines) + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(found), "install", "--quiet"]
    pip += ["--no-index", "--no-deps", "--disable-pip-version-check", str(wheel(root))]
    subprocess.run(pip, check=True)
    return found


def bench(python: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "quanta_bench.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def listed(python: Path, what: str) -> dict[str, Any]:
    done = bench(python, what, "--json")
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_methods_lists_it_beside_the_built_ins(python: Path) -> None:
    rows = listed(python, "methods")
    assert rows["norm_scales"]["from"] == "my-baselines 0.1.0"
    assert rows["quanta"]["from"].startswith("quanta-bench ")


def test_tasks_lists_it_beside_the_built_ins(python: Path) -> None:
    rows = listed(python, "tasks")
    assert rows["commonsense_qa"]["from"] == "my-baselines 0.1.0"
    assert rows["commonsense_qa"]["kind"] == "choice"
    assert rows["piqa"]["from"].startswith("quanta-bench ")


def questions(count: int) -> list[dict[str, Any]]:
    """Rows in CommonsenseQA's form, two on each concept."""
    labels = list("ABCDE")
    return [
        {
            "id": f"q{n}",
            "question": f"What does the {CONCEPTS[n % 5]} number {n} say?",
            "question_concept": f"concept {n // 2}",
            "choices": {"label": labels, "text": CALLS},
            "answerKey": labels[n % 5],
        }
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def csqa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("csqa")
    (folder / "commonsense_qa").mkdir()
    lines = [json.dumps(row) for row in questions(60)]
    (folder / "commonsense_qa" / "validation.jsonl").write_text("\n".join(lines))
    return folder


def test_its_table_is_computed(python: Path, csqa: Path, tiny_model: Path, tmp_path: Path) -> None:
    suite = tmp_path / "my_suite.yaml"
    suite.write_text(FILES["my_suite.yaml"])
    done = bench(
        python, "table", suite, "--json", "--results", tmp_path / "results", "--seeds", "0",
        "--model", f"local:{tiny_model}", "--source", f"local:{csqa}",
        "--set", "training.train_items=8", "--set", "training.validation_items=2",
        "--set", "evaluation.items=6", "--set", "training.precision=float32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert [column["title"] for column in table["columns"]] == ["CSQA"]
    rows = {row["method"] or row["label"]: row for row in table["rows"]}
    assert set(rows) == {"Chance", "Best constant", "none", "lora", "norm_scales"}
    assert rows["norm_scales"]["label"] == "Norms"
    # Two norms a layer and the last one, 64 wide.
    assert rows["norm_scales"]["trainable"] == (2 * 2 + 1) * 64
    assert rows["norm_scales"]["done_seeds"] == [0]
    assert rows["Chance"]["cells"]["commonsense_qa"]["mean"] == pytest.approx(20)


# --- the examples themselves, held to what CONTRIBUTING asks --------------------------------------


def example(file: str, name: str) -> Any:
    scope: dict[str, Any] = {"__name__": f"worked_example_{name}"}
    exec(compile(FILES[file], file, "exec"), scope)
    return scope[name]


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    out: torch.Tensor = model.eval()(input_ids=torch.arange(2, 22).reshape(2, 10)).logits
    return out


def test_the_worked_method_trains_norms_only_and_comes_back_bit_for_bit(
    tiny_model: Path, tmp_path: Path
) -> None:
    method = example("norm_scales.py", "NormScales").from_settings({})
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    start = {name: value.clone() for name, value in base.state_dict().items()}
    before = logits(base)
    model = method.adapt(base, 0)
    assert torch.equal(logits(model), before)

    trained = method.trainable(model)
    needing = {name for name, value in model.named_parameters() if value.requires_grad}
    assert set(trained) == needing == {name for name in start if "norm" in name}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    ids = torch.arange(2, 22).reshape(2, 10)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name]) == (name not in trained), name

    method.save(model, tmp_path)
    loaded = method.load(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), before)
    assert torch.equal(logits(method.merge(model)), logits(loaded))


def test_the_worked_method_refuses_what_it_cannot_do(tiny_model: Path, tmp_path: Path) -> None:
    from quanta_bench.method import BenchError, UsageError

    method = example("norm_scales.py", "NormScales").from_settings({})
    with pytest.raises(UsageError, match="This Linear has no normalisation layers"):
        method.adapt(torch.nn.Linear(2, 2), 0)
    method.save(torch.nn.Sequential(torch.nn.LayerNorm(3)), tmp_path)
    with pytest.raises(BenchError, match="does not hold the scales of this LlamaForCausalLM"):
        method.load(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path)


class Rows:
    """A source of any kind that holds the same rows everywhere."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def rows(self, _: Any) -> list[dict[str, Any]]:
        return questions(60)


def test_the_worked_task_keeps_twins_together_and_puts_the_right_choice() -> None:
    from quanta_bench.task import SourceError

    task = example("commonsense_qa.py", "CommonsenseQA")()
    splits = {
        split: task.examples(Rows("local"), split) for split in ("train", "validation", "test")
    }
    ids = [item.id for items in splits.values() for item in items]
    assert sorted(ids) == sorted(row["id"] for row in questions(60))
    groups = [{item.group for item in items} for items in splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    for item in splits["test"]:
        prompt = task.prompt(item, "choice-text")
        number = int(item.id[1:])
        assert prompt.context.endswith(f"number {number} say?\nAnswer:")
        assert prompt.target == prompt.candidates[item.gold] == f" {CALLS[number % 5]}"
    assert task.chance(splits["test"], [5] * len(splits["test"])) == pytest.approx(0.2)
    with pytest.raises(SourceError, match="no rows in the source 'hub'"):
        task.examples(Rows("hub"), "test")


def test_the_worked_task_reads_the_real_embedded_rows(offline: None) -> None:
    from quanta_bench.sources.rows import parse_source

    task = example("commonsense_qa.py", "CommonsenseQA")()
    source = parse_source("embedded")
    items = [
        item for split in ("train", "validation", "test") for item in task.examples(source, split)
    ]
    assert len(items) == len({item.id for item in items}) == 1221
    assert {len(task.prompt(item, "choice-text").candidates) for item in items} == {5}


def test_the_worked_suite_names_what_the_package_registers() -> None:
    points = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]
    suite = yaml.safe_load(FILES["my_suite.yaml"])
    assert list(points["quanta_bench.tasks"]) == suite["tasks"]
    assert set(points["quanta_bench.methods"]) <= set(suite["profiles"]["embedded"]["rows"])
