"""What one suite takes over from another."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_suite import ROWS_BY_SIZE, SMALL

from quanta_bench.errors import UsageError
from quanta_bench.suites.grid import grid
from quanta_bench.suites.loading import load_suite
from quanta_bench.suites.schema import Suite

LIKE = """
name: heir
tasks: [boolq]
profiles:
  embedded:
    like: {like}
    seeds: [9]
    rows:
      - quanta
      - {{like: {label}, training: {{epochs: 2}}}}
"""


def heir(tmp_path: Path, like: str, label: str = "mine") -> Suite:
    path = tmp_path / "heir.yaml"
    path.write_text(LIKE.format(like=like, label=label))
    return load_suite(str(path))


def test_a_profile_like_anothers_has_what_it_does_not_say_itself(mine: Suite, tmp_path: Path):
    other, own = mine.profiles["embedded"], heir(tmp_path, tmp_path / "mine.yaml").profiles
    assert own["embedded"].seeds == (9,)
    assert [row.method for row in own["embedded"].rows] == ["quanta", "lora"]
    row = own["embedded"].rows[1]
    assert (row.label, row.settings, row.training) == ("mine", {"r": 2}, {"epochs": 2})
    same = {"rows": other.rows, "seeds": other.seeds}
    assert own["embedded"].model_copy(update=same) == other


def test_a_row_is_taken_over_from_the_row_on_the_same_model():
    table3 = {(r.model, r.label): r for r in load_suite("3").profiles["paper"].rows}
    for row in load_suite("F6").profiles["paper"].rows:
        if row.method in ("lora", "dora", "quanta"):
            assert row == table3["llama3-8b", row.label]


@pytest.mark.parametrize(
    ("like", "label", "said"),
    [
        ("tabel3", "mine", "There is no table 'tabel3'. Did you mean 'table3'"),
        ("{other}", "mine", "has no profile 'embedded'. Known: paper"),
        ("{mine}", "mien", "no row 'mien' on smollm2-135m. Did you mean 'mine'"),
        ("{heir}", "mine", "in the end is like it"),
    ],
)
def test_what_cannot_be_taken_over(
    mine: Suite, tmp_path: Path, like: str, label: str, said: str
) -> None:
    files = {name: tmp_path / f"{name}.yaml" for name in ("mine", "heir", "other")}
    files["other"].write_text(SMALL.replace("  embedded:", "  paper:"))
    with pytest.raises(UsageError) as caught:
        heir(tmp_path, like.format(**files), label)
    assert said in str(caught.value)


def test_own_rows_replace_those_of_inherited_sizes(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(ROWS_BY_SIZE)
    path = tmp_path / "heir.yaml"
    text = (
        "name: heir\ntasks: [boolq]\nprofiles:\n  embedded: {{like: {parent}, size: huge{rows}}}\n"
    )
    methods = []
    for rows in ("", ", rows: [none]"):
        path.write_text(text.format(parent=tmp_path / "mine.yaml", rows=rows))
        methods.append([row.spec.method for row in grid(load_suite(str(path)), "embedded")])
    assert methods == [["dora", "lora"], ["none"]]
