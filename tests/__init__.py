"""Tests: `unit` needs no root and no network, `system` needs root and a real kernel."""
