"""lbrun: an MLPerf LoadGen client that balances every request over a pool of inference servers."""

__version__ = "0.1.0"
