"""Contestants, each in a file; `python -m benchmarks.peers` serves one that trains."""
