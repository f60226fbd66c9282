"""What the launcher has Python run (`-c`): find the folder that holds `ocirt`, and hand over to the command line.

The arguments are: the launcher's directory with a slash, the folder that holds `ocirt` or nothing, the name that the launcher
was called by, and its arguments. This text is compiled at every start, so it is kept short; build.py takes its comments out.
"""

import sys
from posix import stat

_, here, home, name, *args = sys.argv
up = here.rsplit("/", 2)[0]
lib = "/lib/python%d.%d/" % sys.version_info[:2]
homes = [home] if home else [up + lib + "site-packages", up + lib + "dist-packages", up]
for home in homes:
    try:
        stat(home + "/ocirt/__pycache__/__init__." + sys.implementation.cache_tag + ".pyc")
    except OSError:
        continue
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
from ocirt.cli.main import main

main(name, args)
