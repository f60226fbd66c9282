"""Layers as root file systems: mounted by a backend, with or without a layer on top that can be written to, or copied."""

from __future__ import annotations

from ocirt_images.snapshots.backend import Backend, Upper, Usage
from ocirt_images.snapshots.copy import copy_layers
from ocirt_images.snapshots.overlay import Overlay
from ocirt_images.snapshots.owner import ANNOTATION, Owner
from ocirt_images.snapshots.snapshots import Snapshots, Writable, attach, detach

__all__ = (
    "ANNOTATION",
    "Backend",
    "Overlay",
    "Owner",
    "Snapshots",
    "Upper",
    "Usage",
    "Writable",
    "attach",
    "copy_layers",
    "detach",
)
