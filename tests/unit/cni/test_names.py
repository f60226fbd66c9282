"""The names that the launcher knows."""

from __future__ import annotations

import ast
from pathlib import Path

from ocirt_cni.plugins import PLUGINS

ROOT = Path(__file__).resolve().parents[3]


def test_the_launcher_knows_every_plugin() -> None:
    tree = ast.parse((ROOT / "launcher/boot.py").read_text())
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    words = {word for text in texts for word in text.split()}
    assert set(PLUGINS) <= words
    assert "ocirt-cni" in words
