"""What the bench asserts says as much as the assertions of the tests."""

import pytest

pytest.register_assert_rewrite("workers_bench", "dispatch_over_workers")
