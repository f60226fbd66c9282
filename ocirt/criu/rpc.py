"""The messages of CRIU's RPC, as its images/rpc.proto numbers them (CRIU 4.2; only what is used here)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.criu.protobuf import Table

# enum criu_req_type
TYPES = {"DUMP": 1, "RESTORE": 2, "PRE_DUMP": 4, "NOTIFY": 6, "FEATURE_CHECK": 9, "VERSION": 10}
# enum criu_cg_mode, by the words of --manage-cgroups-mode
CGROUP_MODES = {"": 6, "ignore": 0, "soft": 3, "full": 4, "strict": 5}

_PAGE_SERVER: Table = {"address": (1, str, False), "port": (2, int, False), "pid": (3, int, False), "fd": (4, int, False)}
_FEATURES: Table = {"mem_track": (1, bool, False), "lazy_pages": (2, bool, False)}
OPTIONS: Table = {
    "images_dir_fd": (1, int, False),
    "pid": (2, int, False),
    "leave_running": (3, bool, False),
    "ext_unix_sk": (4, bool, False),
    "tcp_established": (5, bool, False),
    "evasive_devices": (6, bool, False),
    "shell_job": (7, bool, False),
    "file_locks": (8, bool, False),
    "log_level": (9, int, False),
    "log_file": (10, str, False),
    "ps": (11, _PAGE_SERVER, False),
    "notify_scripts": (12, bool, False),
    "root": (13, str, False),
    "parent_img": (14, str, False),
    "track_mem": (15, bool, False),
    "auto_dedup": (16, bool, False),
    "work_dir_fd": (17, int, False),
    "link_remap": (18, bool, False),
    "ext_mnt": (23, {"key": (1, str, False), "val": (2, str, False)}, True),
    "manage_cgroups": (24, bool, False),
    "cg_root": (25, {"ctrl": (1, str, False), "path": (2, str, False)}, True),
    "rst_sibling": (26, bool, False),
    "inherit_fd": (27, {"key": (1, str, False), "fd": (2, int, False)}, True),
    "manage_cgroups_mode": (34, int, False),
    "external": (37, str, True),
    "empty_ns": (38, int, False),
    "join_ns": (39, {"ns": (1, str, False), "ns_file": (2, str, False)}, True),
    "freeze_cgroup": (44, str, False),
    "tcp_skip_in_flight": (46, bool, False),
    "lazy_pages": (48, bool, False),
    "orphan_pts_master": (50, bool, False),
    "config_file": (51, str, False),
    "lsm_profile": (53, str, False),
    "lsm_mount_context": (63, str, False),
}
REQUEST: Table = {
    "type": (1, int, False),
    "opts": (2, OPTIONS, False),
    "notify_success": (3, bool, False),
    "features": (5, _FEATURES, False),
}
RESPONSE: Table = {
    "type": (1, int, False),
    "success": (2, bool, False),
    "restore": (4, {"pid": (1, int, False)}, False),
    "notify": (5, {"script": (1, str, False), "pid": (2, int, False)}, False),
    "cr_errno": (7, int, False),
    "features": (8, _FEATURES, False),
    "cr_errmsg": (9, str, False),
    "version": (10, {"major_number": (1, int, False), "minor_number": (2, int, False), "sublevel": (4, int, False)}, False),
}
