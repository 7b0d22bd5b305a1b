"""Where settings of default rows come from, in the words that tables print."""

from __future__ import annotations

OURS = "our choice"
COMPARED = "compared on validation items, see results/study/rates"
BOUNDED = (
    "leaves the perplexity of running text within 1.5 times the base's, see results/study/rates"
)
