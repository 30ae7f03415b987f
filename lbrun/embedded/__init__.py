"""Embedded servers: real HTTP servers that speak vLLM's and SGLang's protocols over a simulated model.

`lbrun.embedded.pool` starts them as child processes, `python -m lbrun.embedded` serves one by hand.
This package imports nothing by itself, so that a server process starts fast.
"""
