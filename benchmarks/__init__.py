"""What this project costs beside what users would pick, measured in one run: ``python -m benchmarks NAME``."""
