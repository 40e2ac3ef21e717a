"""The sentence-pair objective: labels, architectures, metrics, baselines."""
