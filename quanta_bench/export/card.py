"""The model card of an exported run: what was trained on what, its scores, and how to load it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from scipy import stats

from quanta_bench import __version__
from quanta_bench.plugins import METHODS, find_protocol, is_registered
from quanta_bench.references import portable_task, short_names
from quanta_bench.results.records import Result, TaskResult
from quanta_bench.runs.places import by_last_names
from quanta_bench.sources.wheels import MODEL_WHEEL
from quanta_bench.utils.escaping import markdown, markdown_code
from quanta_bench.utils.folders import whole_file

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, EvalResultEntry

    from quanta_bench.export.stored import Form, StoredRun

TEMPLATE = Path(__file__).parent / "templates" / "card.md.jinja"
HUB = "hub:"
"""What names of data read from the hub start with in a record."""
ORIGINAL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model on the hub that the embedded one was made from."""


@dataclass(frozen=True)
class Score:
    """A task's score, as a card shows it.

    Attributes:
        task: the task.
        title: its title.
        metric: name of its main metric.
        value: in the metric's own unit; accuracies are fractions.
        half: half of the 95 % interval over test items; ``None`` where it is not known.
        chance: the metric of uniform guessing, where defined.
        items: number of test items.
    """

    task: str
    title: str
    metric: str
    value: float
    half: float | None
    chance: float | None
    items: int


def scores(result: Result) -> list[Score]:
    """The scores of a run by task."""
    return [
        Score(
            name,
            found.title,
            found.metric,
            found.metrics[found.metric],
            half_interval(found),
            found.chance,
            found.items,
        )
        for name, found in result.tasks.items()
    ]


def half_interval(found: TaskResult) -> float | None:
    """Half of the 95 % interval of a task's main metric over groups of test items, by Student's t;
    ``None`` without a standard error.
    """
    if found.standard_error is None or found.groups < 2:
        return None
    return float(stats.t.ppf(0.975, found.groups - 1)) * found.standard_error


def write(run: StoredRun, folder: Path, form: Form, name: str, base: str) -> None:
    """Write ``README.md`` and, for tasks read from the hub, ``.eval_results``.

    Args:
        run: the run.
        folder: where its model was written.
        form: how.
        name: of the model.
        base: what the base model is loaded by; empty for a merged model.
    """
    from huggingface_hub import ModelCard, ModelCardData

    result = run.result
    spec = result.training.spec
    data = ModelCardData(
        model_name=name,
        base_model=base_on_the_hub(result),
        library_name="transformers" if form == "merged" else "peft",
        pipeline_tag="text-generation" if find_protocol(spec.protocol).prompts else
        "text-classification",
        tags=["quanta-bench", spec.method],
        datasets=sorted({name for names in hub_data(result).values() for name in names}) or None,
        license=MODEL_WHEEL.licence.lower() if spec.model.source == "embedded" else None,
        eval_results=eval_results(result),
    )  # fmt: skip
    # ModelCard refuses its own default template's variables; those of ours are all given here.
    card = ModelCard.from_template(data, template_str=TEMPLATE.read_text("utf-8"), **_words(
        run, form, name, base
    ))  # fmt: skip
    card.save(folder / "README.md")
    write_entries(result, folder)


def write_entries(result: Result, folder: Path) -> Path | None:
    """Write ``.eval_results`` for tasks that were read from the hub; ``None`` where none was."""
    entries = hub_entries(result)
    if not entries:
        return None
    from huggingface_hub import eval_result_entries_to_yaml

    path = folder / ".eval_results" / "quanta-bench.yaml"
    text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    with whole_file(path) as stream:
        stream.write(text.encode())
    return path


def eval_results(result: Result) -> list[EvalResult]:
    """The scores as the ``model-index`` of a card's metadata."""
    from huggingface_hub import EvalResult

    found = []
    short = short_names(result.tasks)
    kind = "text-generation" if find_protocol(result.protocol["put"]).prompts else (
        "text-classification"
    )  # fmt: skip
    for score in scores(result):
        spread: dict[str, Any] = {"items": score.items}
        if score.half is not None:
            spread["interval"] = [score.value - score.half, score.value + score.half]
        names = hub_data(result).get(score.task, [])
        found.append(
            EvalResult(
                task_type=kind,
                dataset_type=names[0] if names else short[score.task],
                dataset_name=score.title,
                dataset_split=result.evaluation.split,
                dataset_args={"source": by_last_names(result.evaluation).source},
                metric_type=score.metric,
                metric_name=f"{score.metric} ({result.protocol['put']})",
                metric_value=score.value,
                metric_args=spread,
            )
        )
    return found


def hub_entries(result: Result) -> list[EvalResultEntry]:
    """The scores of tasks that were read from the hub whole, for its page of a model.

    Others are left out: the hub shows an entry beside those of the published data set, and what is
    embedded is cut anew.
    """
    from huggingface_hub import EvalResultEntry

    if result.evaluation.items is not None:
        return []
    data, short = hub_data(result), short_names(result.tasks)
    return [
        EvalResultEntry(
            dataset_id=data[score.task][0],
            task_id=short[score.task],
            value=score.value,
            notes=f"{score.metric}, quanta-bench {__version__}, protocol {result.protocol['put']}",
        )
        for score in scores(result)
        if data.get(score.task)
    ]


def hub_data(result: Result) -> dict[str, list[str]]:
    """The data sets of the hub that each task was read from: owner and name."""
    return {
        task: ["/".join(name.removeprefix(HUB).split("/")[:2])
               for name in found.data.get("content", {}) if name.startswith(HUB)]
        for task, found in result.tasks.items()
    }  # fmt: skip


def base_on_the_hub(result: Result) -> str | None:
    """The base model's name on the hub, or that of the model it was made from."""
    model = result.training.spec.model
    if model.source == "embedded":
        return ORIGINAL
    return model.name if model.source == "hub" else None


def _words(run: StoredRun, form: Form, name: str, base: str) -> dict[str, Any]:
    """The variables of the template."""
    result = run.result
    record = result.training
    # A card is read on other machines.
    spec = by_last_names(record.spec)
    title = METHODS.get(spec.method).title
    head = not find_protocol(spec.protocol).prompts
    return {
        "title": markdown(name),
        "name": name,
        "form": form,
        "head": head,
        "method": markdown(title),
        "base": markdown(record.model),
        "base_path": base,
        "outputs": _outputs(record.spec.tasks) if head and form != "merged" else 0,
        "settings": ", ".join(f"{k}={v}" for k, v in record.settings.items() if v is not None),
        "tasks": ", ".join(markdown(portable_task(task)) for task in spec.tasks),
        "record": record,
        "spec": spec,
        "share": f"{100 * record.trainable_parameters / record.base_parameters:.3g}",
        "put": result.protocol["put"],
        "chat": result.protocol.get("chat_template", ""),
        "scoring": find_protocol(result.protocol["put"]).scoring(result.evaluation.normaliser),
        "evaluation": by_last_names(result.evaluation),
        "rows": [_row(score) for score in scores(result)],
        "forgetting": {
            markdown(portable_task(task)): f"{value:.2f}"
            for task, value in result.forgetting.items()
        },
        "command": run.portable_command,
        "version": __version__,
        "commit": record.environment.git_commit[:12],
        "packages": {
            name: record.environment.packages[name]
            for name in ("torch", "transformers", "peft")
            if name in record.environment.packages
        },
        "code": markdown_code,
        "literal": _literal,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hub_data": [task for task, names in hub_data(result).items() if names],
    }


def _row(score: Score) -> dict[str, str]:
    half = "" if score.half is None else f" ± {score.half:.3f}"
    return {
        "title": markdown(score.title),
        "metric": markdown(score.metric),
        "value": f"{score.value:.3f}{half}",
        "chance": "–" if score.chance is None else f"{score.chance:.3f}",
        "items": str(score.items),
    }


def _literal(text: str) -> str:
    """A text as a literal of Python, in the double quotes of the card's code."""
    return json.dumps(text, ensure_ascii=False)


def _outputs(tasks: Sequence[str]) -> int:
    """The number of outputs of a classification head, where the one task tells."""
    from quanta_bench.plugins import find_task

    return find_task(tasks[0]).outputs if len(tasks) == 1 and is_registered(tasks[0]) else 0
