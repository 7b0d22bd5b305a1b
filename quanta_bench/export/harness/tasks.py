"""Our items as tasks of lm-evaluation-harness: the same prompts, scored by its code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from quanta_bench.evaluation import decisions
from quanta_bench.evaluation.evaluators import Judged
from quanta_bench.export.formats.lm_eval_results import PREFIX
from quanta_bench.export.formats.names import portable
from quanta_bench.task import Answer, Example, Prompt, Task


@dataclass(frozen=True)
class OwnTask:
    """A task of ours with the items that both score.

    Attributes:
        reference: the task as the command line names it.
        task: the task.
        prompts: of the items.
        judged: the items as our scorer judged them, in the same order.
    """

    reference: str
    task: Task
    prompts: Sequence[Prompt]
    judged: Sequence[Judged]

    @property
    def name(self) -> str:
        """Its name in lm-eval."""
        return PREFIX + portable(self.reference)

    @property
    def compares(self) -> bool:
        """Whether candidates are compared."""
        return self.task.kind != "perplexity" and "log_likelihoods" in self.judged[0].detail

    def config(self) -> dict[str, Any]:
        """What lm-eval's ``ConfigurableTask`` is made of."""
        common = {
            "task": self.name,
            "custom_dataset": self._rows,
            "test_split": "test",
            "num_fewshot": 0,
            "doc_to_text": "context",
            # A candidate brings its own space.
            "target_delimiter": "",
            "metadata": {"version": self.task.template_version},
        }
        if self.compares:
            return {
                **common,
                "output_type": "multiple_choice",
                "doc_to_choice": "choices",
                "doc_to_target": "gold",
                "metric_list": [_metric(name) for name in ("acc", "acc_bytes")],
            }
        if self.task.kind == "perplexity":
            rolling = not any(prompt.context for prompt in self.prompts)
            return {
                **common,
                "output_type": "loglikelihood_rolling" if rolling else "loglikelihood",
                "doc_to_text": "" if rolling else "context",
                "doc_to_target": "target",
                "process_results": _likelihood,
                "metric_list": [
                    {
                        "metric": "byte_perplexity",
                        "aggregation": "weighted_perplexity",
                        "higher_is_better": False,
                    }
                ],
            }
        bound = max(item.max_new_tokens or 0 for item in self.judged)
        metrics = list(decisions.aggregate(self.task, [item.answers for item in self.judged]))
        return {
            **common,
            "output_type": "generate_until",
            "doc_to_target": "target",
            "generation_kwargs": {
                "until": list(self.task.stop),
                "max_gen_toks": bound,
                "do_sample": False,
            },
            "process_results": partial(_judge, self.task, self._examples, metrics),
            "metric_list": [_metric(name, _sum_up(self.task, name)) for name in metrics],
        }

    @property
    def _examples(self) -> list[Example]:
        return [item.example for item in self.judged]

    def _rows(self, **_: Any) -> dict[str, Any]:
        from datasets import Dataset

        rows = [
            {
                "number": number,
                "context": prompt.context,
                "choices": list(prompt.candidates),
                "gold": item.example.gold if item.example.gold is not None else 0,
                "target": prompt.target,
            }
            for number, (prompt, item) in enumerate(zip(self.prompts, self.judged, strict=True))
        ]
        return {"test": Dataset.from_list(rows)}


def _metric(name: str, aggregation: Any = "mean") -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": True}


def _likelihood(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
    """A text's log-likelihood and its bytes; lm-eval gives it with or without a second value."""
    (found,) = results
    total = found[0] if isinstance(found, tuple | list) else found
    return {"byte_perplexity": (total, len(doc["target"].encode()))}


def _judge(
    task: Task,
    examples: Sequence[Example],
    metrics: Sequence[str],
    doc: Mapping[str, Any],
    results: Sequence[str],
) -> dict[str, Answer]:
    """The text that lm-eval generated, judged by our task: it has no judge for our answers."""
    answer = task.judge_text(examples[doc["number"]], results[0])
    return dict.fromkeys(metrics, answer)


def _sum_up(task: Task, metric: str) -> Callable[[Sequence[Answer]], float]:
    return lambda answers: decisions.aggregate(task, [(answer,) for answer in answers])[metric]
