"""Small helpers that know nothing of models, tasks or runs."""
