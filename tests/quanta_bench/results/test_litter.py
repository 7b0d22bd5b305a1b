"""What killed processes left is removed; what is in use or finished stays."""

from __future__ import annotations

import os
from pathlib import Path

from quanta_bench.results.leases import Leases, Owner
from quanta_bench.results.litter import remove_litter

FREE, HELD = "0" * 12, "1" * 12


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def fill(root: Path, training: str) -> set[str]:
    """What a process that computed a training may leave; returns what must stay in any case."""
    litter = [
        f"runs/.my-lora-{training}-{'a' * 12}.part-x1/my-lora-{training}-{'a' * 12}/result.json",
        f"trainings/.{training}.part-x1/{training}/training.json",
        f"unfinished/{training}/.last.ckpt.part-abc",
    ]
    kept = [
        f"unfinished/{training}/last.ckpt",
        f"runs/my-lora-{training}-{'b' * 12}/result.json",
        f"set-aside/{training}/result.json",
    ]
    for name in (*litter, *kept):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return set(kept)


def test_litter_goes_unless_its_training_is_in_use(tmp_path: Path) -> None:
    kept = fill(tmp_path, FREE)
    fill(tmp_path, HELD)
    held = {name for name in tree(tmp_path) if HELD in name}
    with Leases(tmp_path / "leases").hold(HELD):
        remove_litter(tmp_path, Leases(tmp_path / "leases"))
        assert tree(tmp_path) == kept | held | {f"leases/{HELD}.json"}
    remove_litter(tmp_path, Leases(tmp_path / "leases"))
    assert len(tree(tmp_path)) == 2 * len(kept)


def test_checkpoints_of_a_finished_training_go(tmp_path: Path) -> None:
    """As left by a process that was killed between storing a training and tidying up."""
    fill(tmp_path, FREE)
    (tmp_path / "trainings" / FREE).mkdir()
    (tmp_path / "trainings" / FREE / "training.json").touch()
    remove_litter(tmp_path, Leases(tmp_path / "leases"))
    assert not (tmp_path / "unfinished" / FREE).exists()
    assert (tmp_path / "trainings" / FREE / "training.json").exists()


def test_leases_that_have_ended_and_old_locks_go(tmp_path: Path) -> None:
    (tmp_path / "leases").mkdir()
    (tmp_path / "unfinished").mkdir()
    far = Owner(token="t", host="far", machine="another", process=1)
    for name in ("far", "damaged", "mine"):
        (tmp_path / "leases" / f"{name}.json").write_text(far.model_dump_json())
    gone = Owner.here().model_copy(update={"process": 2**22 + 1})
    (tmp_path / "leases" / "mine.json").write_text(gone.model_dump_json())
    old, new = tmp_path / "unfinished/a.lock", tmp_path / ".table.md.part-1"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    remove_litter(tmp_path, Leases(tmp_path / "leases"))
    # Another machine's may be alive, and a file of this minute may be in use.
    assert tree(tmp_path) == {"leases/far.json", "leases/damaged.json", ".table.md.part-1"}


def test_a_folder_that_is_not_there_has_no_litter(tmp_path: Path) -> None:
    remove_litter(tmp_path / "none", Leases(tmp_path / "none" / "leases"))
    assert not (tmp_path / "none").exists()
