"""Encoders: loading checkpoints, the padding-free forward, precision."""
