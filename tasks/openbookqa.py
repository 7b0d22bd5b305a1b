"""OpenBookQA (Mihaylov et al. 2018, arXiv:1809.02789): elementary science with a twist."""

from __future__ import annotations

from tasks.arc import ScienceQuestions, science_places


class OpenBookQA(ScienceQuestions):
    """Choose one of four answers."""

    name = "openbookqa"
    title = "OBQA"
    places = science_places(
        "openbookqa/main/validation",
        "openbookqa/test_rc_5shot",
        ("allenai/openbookqa", "main"),
        "openbookqa",
    )
