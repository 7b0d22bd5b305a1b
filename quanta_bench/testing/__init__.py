"""The tests that every method and every task has to pass, as classes to subclass in a test module.

`quanta_bench.testing.methods` holds `MethodBattery`, `quanta_bench.testing.tasks` `TaskBattery`.
They need pytest, which is no dependency of the suite itself.
"""

from __future__ import annotations

import pytest

# Before they are imported: a failed assertion then shows the values that it compared.
pytest.register_assert_rewrite("quanta_bench.testing.methods", "quanta_bench.testing.tasks")
