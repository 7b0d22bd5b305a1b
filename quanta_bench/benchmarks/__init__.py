"""The suite's own benchmarks: training, scoring and start-up beside other ways to do the same."""
