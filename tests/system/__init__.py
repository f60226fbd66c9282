"""Tests on a real kernel, as root. Each leaves the host as it was."""
