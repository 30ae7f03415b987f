"""MLPerf LoadGen: its settings, its callbacks and its logs. The only place that imports mlperf_loadgen."""
