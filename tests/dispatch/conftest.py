"""The bench checks the invariants of every test; its assertions say as much as those of the tests."""

import pytest

pytest.register_assert_rewrite("dispatch_bench")
