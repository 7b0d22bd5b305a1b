"""Parameters, memory and GPU-hours, from configurations alone: nothing is trained."""
