"""The one place where tests name folders: the checkout, and real data that may lie beside it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

STUDY = ROOT / "results" / "study"

SHARED_DATA = ROOT.parent / "shared" / "data"
"""Real files in their published layouts. Tests that read them skip where the folder is missing."""

PEFT_SOURCE = Path(os.environ["PEFT_SOURCE"]) if os.environ.get("PEFT_SOURCE") else None
"""An unpacked source distribution of `peft`, whose own tests our tuners then go through."""
