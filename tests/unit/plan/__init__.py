"""Tests of ocirt.plan: order and content of plans, without any container."""
