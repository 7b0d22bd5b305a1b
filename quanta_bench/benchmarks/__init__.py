"""The suite's own benchmarks: training, scoring and start-up, compared with alternatives."""
