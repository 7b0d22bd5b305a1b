"""A method that raises what nobody foresaw, or exits: it is named, and the other runs go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from baselines.lora import Dora
from quanta_bench.cli import main


@pytest.mark.parametrize("error", [KeyError("odd"), SystemExit(0)])
def test_a_crash_is_named_logged_and_costs_its_own_row_alone(
    error: BaseException,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def adapt(self: Any, model: Any, seed: int) -> Any:
        raise error

    monkeypatch.setattr(Dora, "adapt", adapt)
    # Not counted before it is computed, or the table would be refused at once.
    data = tmp_path / "d.jsonl"
    data.write_text(
        "\n".join(
            json.dumps(
                {"prompt": f"{n} of {s} is", "choices": ["odd", "even"], "answer": 0, "split": s}
            )
            for s in ("train", "validation", "test")
            for n in range(4)
        )
    )
    suite = tmp_path / "t.yaml"
    profile = {
        "model": ".",
        "model_source": f"local:{tiny_model}",
        "training": {"precision": "float32", "validations": 1},
        "rows": ["none", {"method": "dora", "label": "Bad", "settings": {"r": 2}}, "lora"],
    }
    content = {"name": "t", "tasks": [f"jsonl:{data}"], "profiles": {"embedded": profile}}
    suite.write_text(yaml.safe_dump(content))
    words = ["quanta-bench", "table", str(suite), "--results", str(tmp_path / "r"), "--json"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main.main()
    out, err = capsys.readouterr()
    assert ended.value.code == 1
    (log,) = (tmp_path / "r" / "logs").glob("*.log")
    assert f"Bad: {type(error).__name__}: " in err
    assert f"{__file__}, line " in err
    assert f"The full traceback is in {log}" in err
    assert "Traceback" not in err
    assert "in adapt" in log.read_text()
    rows = {row["label"]: row["done_seeds"] for row in json.loads(out)["rows"]}
    assert rows["Bad"] == []
    assert rows["Base model"] == rows["LoRA r=8"] == [0]
