"""lm-evaluation-harness as a second scorer of a run's model, or of an exported one."""
