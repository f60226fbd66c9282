"""Loads ocirt's modules from one file with all their byte code (build.py makes it); boot.py executes this from there.

The interpreter's own way looks into directories and reads one file a module, which for a container's start takes longer than the
start of many a container runtime. What the file does not have, or has from an older source, is left to that way.
"""

import sys
from marshal import loads
from posix import pread, stat


class Finder:
    """A finder and loader of the import system. It uses nothing that the bare interpreter has not loaded."""

    def __init__(self, fd, home, start, index, checked):
        self.fd = fd
        self.home = home
        self.start = start
        self.index = index
        self.checked = checked

    # The three methods that the import system calls (importlib.abc).
    def find_spec(self, name, path=None, target=None):
        entry = self.index.get(name)
        if entry is None:
            return None
        _, _, package, modified = entry
        directory = self.home + "/" + name.replace(".", "/")
        origin = directory + "/__init__.py" if package else directory + ".py"
        if self.checked:
            try:
                if stat(origin).st_mtime_ns != modified:
                    return None
            except OSError:
                return None
        spec = type(sys.__spec__)(name, self, origin=origin, is_package=package)
        if package:
            spec.submodule_search_locations.append(directory)
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        offset, size, _, _ = self.index[module.__name__]
        exec(loads(pread(self.fd, size, self.start + offset)), module.__dict__)


sys.meta_path.insert(0, Finder(*archive))  # noqa: F821  (boot.py gives it)
