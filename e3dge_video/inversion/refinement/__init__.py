"""Test-time optimisation: what a few steps on the pictures themselves add to the encoders (§4.4)."""
