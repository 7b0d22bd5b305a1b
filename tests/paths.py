"""The one place where tests name folders: the checkout, and real data that may lie beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

STUDY = ROOT / "results" / "study"

SHARED_DATA = ROOT.parent / "shared" / "data"
"""Real files in their published layouts. Tests that read them skip where the folder is missing."""
