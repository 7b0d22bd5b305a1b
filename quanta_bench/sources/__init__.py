"""Where models and rows come from: PyPI wheels, the hub, local folders."""
