"""Score, generate and judge answers; metrics and their standard errors."""
