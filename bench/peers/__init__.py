"""The field's task queues, side by side: `make bench-peers`, `python -m bench.peers --help`, docs/benchmarks.md."""
