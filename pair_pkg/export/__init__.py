"""Finished models in the formats of other programs, each proven equal to float32."""
