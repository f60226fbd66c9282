"""Bundles from images: config.json, and the root file system beside it."""

from ocirt_images.bundle.config import runtime_config
from ocirt_images.bundle.options import Options, read_entrypoint, read_env, read_size
from ocirt_images.bundle.prepare import Prepared, prepare_run
from ocirt_images.bundle.users import User
from ocirt_images.bundle.write import Image, mount_again, write_copy, write_mounted

__all__ = (
    "Image",
    "Options",
    "Prepared",
    "User",
    "mount_again",
    "prepare_run",
    "read_entrypoint",
    "read_env",
    "read_size",
    "runtime_config",
    "write_copy",
    "write_mounted",
)
