"""Origins of the default rows' settings, as tables print them."""

from __future__ import annotations

OURS = "our choice"
COMPARED = "compared on validation items, see results/study/rates"
BOUNDED = (
    "leaves the perplexity of running text within 1.5 times the base's, see results/study/rates"
)
