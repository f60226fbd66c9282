"""Loads ocirt's modules from one file with all their byte code (build.py makes it); boot.py executes this from there.

The interpreter's own way looks into directories and reads one file a module, which for a container's start takes longer than the
start of many a container runtime. What the file does not have, or has from an older source, is left to that way.
"""

import sys
from marshal import loads
from posix import pread, stat


class Finder:
    """A finder and loader of the import system. It uses nothing that the bare interpreter has not loaded.

    index: module to (offset, size, whether it is a package, time of its source in ns). groups: name to (offset, size, modules);
    the name is that of a verb, or of a plugin and its command.
    """

    def __init__(self, fd, home, start, index, groups, checked):
        self.fd = fd
        self.home = home
        self.start = start
        self.index = index
        self.groups = groups
        self.checked = checked

    def preload(self, group):
        """Make all modules that a group is known to need, without the import system, which takes as long as their code."""
        if group not in self.groups:
            return
        offset, size, names = self.groups[group]
        modules = sys.modules
        if names[-1] in modules:  # it was made before: a group is whole or not there
            return
        for name in names:
            if not self.fresh(name):
                return
        kind = type(sys)
        # In an order in which each finds what it imports.
        for name, code in zip(names, loads(pread(self.fd, size, self.start + offset)), strict=True):
            if name in modules:
                continue
            modules[name] = module = kind(name)
            if self.index[name][2]:
                module.__path__ = [self.home + "/" + name.replace(".", "/")]
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(modules[parent], last, module)
            exec(code, module.__dict__)

    def source(self, name):
        directory = self.home + "/" + name.replace(".", "/")
        return directory + "/__init__.py" if self.index[name][2] else directory + ".py"

    def fresh(self, name):
        if not self.checked:
            return True
        try:
            return stat(self.source(name)).st_mtime_ns == self.index[name][3]
        except OSError:
            return False

    # The three methods that the import system calls (importlib.abc).
    def find_spec(self, name, path=None, target=None):
        if name not in self.index or not self.fresh(name):
            return None
        package = self.index[name][2]
        spec = type(sys.__spec__)(name, self, origin=self.source(name), is_package=package)
        if package:
            spec.submodule_search_locations.append(self.home + "/" + name.replace(".", "/"))
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        offset, size, _, _ = self.index[module.__name__]
        exec(loads(pread(self.fd, size, self.start + offset)), module.__dict__)


sys.meta_path.insert(0, Finder(*archive))  # noqa: F821  (boot.py gives it)
