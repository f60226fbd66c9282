"""Tests of ocirt.library and ocirt.zygote, as far as they need no container."""
