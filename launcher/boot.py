"""What the launcher has Python run (`-c`): find the folder that holds `ocirt`, and hand over to the command line.

The arguments are: the launcher's directory with a slash, the folder that holds `ocirt` or nothing, the name that the launcher
was called by, and its arguments. This text is compiled at every start, so it is kept short; build.py takes its comments out.
"""

import sys
from posix import O_CLOEXEC, open, read, stat

_, here, home, name, *args = sys.argv
up = here.rsplit("/", 2)[0]
lib = "/lib/python%d.%d/" % sys.version_info[:2]
homes = [home] if home else [up + lib + "site-packages", up + lib + "dist-packages", up]
plugins = "bandwidth bridge dhcp dummy firewall host-device host-local ipvlan loopback macvlan portmap ptp sbr static tap tuning"
cni = name in ["ocirt-cni", "vlan", "vrf", *plugins.split()]
package = "ocirt_cni" if cni else "ocirt"
if cni:
    homes = [folder + below for folder in homes for below in ("", "/cni")]  # the second in a clone
cache = "/" + package + "/__pycache__/"
tag = "." + sys.implementation.cache_tag
for home in homes:
    try:
        fd = open(home + cache + package + tag + ".archive", O_CLOEXEC)
    except OSError:
        try:
            stat(home + cache + "__init__" + tag + ".pyc")
        except OSError:
            continue
    else:
        # A length, then as much of marshal: the loader's code, and what it needs to find the modules' code behind that.
        from marshal import loads

        size = int.from_bytes(read(fd, 4), "little")
        loader, *rest = loads(read(fd, size))
        exec(loader, {"archive": (fd, home, 4 + size, *rest)})
    sys.path.append(home)
    break
else:
    # No byte code was installed. Every start would compile all that it loads, so it is kept elsewhere.
    sys.path += homes
    try:
        from ocirt.bytecode import keep
    except ModuleNotFoundError:
        sys.exit("ocirt: cannot find its package in any of " + ", ".join(homes))
    keep()
if cni:
    from ocirt_cni.main import main
elif name in ("ocirtd", "ocirt-csi"):
    from ocirt.cli.elsewhere import daemon as main
elif name == "containerd-shim-ocirt-v2":
    from ocirt.cli.elsewhere import shim as main
else:
    from ocirt.cli.main import main

main(name, args)
