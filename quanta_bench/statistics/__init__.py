"""What may be concluded from scores: intervals, comparisons, baselines of a task.

Pure functions on arrays; docs/statistics.md has the design, the formulas and their simulation.
"""
