"""What lbrun costs, measured: ``python -m benchmarks``. See docs/performance.md."""
