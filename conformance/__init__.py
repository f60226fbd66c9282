"""Suites and clients that others wrote, with ocirt in the place of their runtime."""
