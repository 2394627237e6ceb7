"""The contenders of `tools/benchmark.py`, one module each."""
