"""The benchmark: Ardiq as a user runs it, beside its floor. `python -m bench --help`; bench/README.md."""
