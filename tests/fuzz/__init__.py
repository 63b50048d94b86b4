"""Fuzzing of everything that an outsider writes: `make fuzz` runs it for long, and `test_fuzz.py` for a few seconds."""
