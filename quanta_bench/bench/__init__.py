"""Run benchmarks, each in a process of its own, and report ratios with intervals."""
