"""Tests of ocirt.containers and of the verbs that stand on it, as far as they need no privileges."""
