"""Tests of ocirt.kernel, as far as it needs no privileges."""
