"""Inheritance between suites, so that what tables of the same data share is written once.

A profile with ``like: table3`` inherits from the profile of the same name in that suite; its own
keys override the inherited ones, and its own rows those of inherited sizes too. A row in it with
``like: LABEL`` inherits in the same way from the other profile's row with that label on the same
model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quanta_bench.errors import UsageError, did_you_mean

KEY = "like"


def resolve(content: Any, load: Callable[[str], Any]) -> Any:
    """A suite's plain content with everything that it inherits filled in.

    Content that does not have the form of a suite is returned unchanged for validation to refuse.

    Args:
        content: what the file holds.
        load: gives the content of another suite by name, resolved.

    Raises:
        UsageError: the other suite has no such profile, or that profile no such row.
    """
    if not (isinstance(content, dict) and isinstance(content.get("profiles"), dict)):
        return content
    profiles = {
        name: _profile(name, profile, load) if _takes_over(profile) else profile
        for name, profile in content["profiles"].items()
    }
    return {**content, "profiles": profiles}


def _takes_over(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get(KEY), str)


def _profile(name: str, own: Mapping[str, Any], load: Callable[[str], Any]) -> dict[str, Any]:
    suite = own[KEY]
    profiles = load(suite)["profiles"]
    if name not in profiles:
        raise UsageError(f"like: {suite} has no profile {name!r}. {did_you_mean(name, profiles)}")
    other = profiles[name]
    merged = {**other, **own}
    del merged[KEY]
    if "rows" in own and "sizes" not in own and isinstance(other.get("sizes"), dict):
        merged["sizes"] = {name: _without_rows(size) for name, size in other["sizes"].items()}
    if isinstance(merged.get("rows"), list):
        merged["rows"] = [
            _row(row, merged.get("model"), other, f"{suite}, profile {name!r}")
            if _takes_over(row)
            else row
            for row in merged["rows"]
        ]
    return merged


def _without_rows(size: Any) -> Any:
    if not isinstance(size, dict):
        return size
    return {key: value for key, value in size.items() if key != "rows"}


def _row(own: Mapping[str, Any], default: Any, other: Mapping[str, Any], of: str) -> dict[str, Any]:
    model = own.get("model", default)
    usual = other.get("model")
    labelled = [row for row in other.get("rows", ()) if isinstance(row, dict) and "label" in row]
    candidates = {row["label"]: row for row in labelled if row.get("model", usual) == model}
    label = own[KEY]
    if label not in candidates:
        raise UsageError(
            f"like: {of} has no row {label!r} on {model}. {did_you_mean(label, candidates)}"
        )
    merged = {**candidates[label], **own}
    del merged[KEY]
    return merged
