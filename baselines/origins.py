"""Where settings of default rows come from, in the words that tables print."""

from __future__ import annotations

OURS = "our choice"
COMPARED = "compared on validation items, see results/study/rates"
