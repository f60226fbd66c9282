"""Limits of a directory's size that the file system holds: quota groups of btrfs, and project quotas of ext4 and XFS.

The system calls alone; in which order they are made, so that a kill between any two leaves nothing for good, is in
ocirt_images.store.limits.
"""

from __future__ import annotations
