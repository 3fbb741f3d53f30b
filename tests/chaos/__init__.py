"""Real workers and producers against real servers, a seeded script of faults, and a ledger outside the server.

python -m tests.chaos --seed 7 --topology valkey --tasks 50000 --faults 50
"""
