/*
 * ocirt: starts ocirt's Python code isolated, from a copy of the interpreter that no container can write to.
 *
 * docs/launcher.md tells why each step is there. What is started: PYTHON -I -S -B -X utf8 -c BOOT FDS DIR ROOT NAME ARGS...
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "boot.h" /* BOOT, made from boot.py */

/* Kernel interface: include/uapi/linux/mount.h and memfd.h; older C libraries lack them. */
#define NR_OPEN_TREE 428
#define NR_MOUNT_SETATTR 442
#define OPEN_TREE_CLONE_ 1
#define ATTR_RDONLY 1
#define MFD_EXEC_ 0x10

static _Noreturn void fail(const char *what, const char *path, const char *hint)
{
    dprintf(2, "ocirt: %s%s%s: %s%s%s%s\n", what, *path ? " " : "", path, strerror(errno), *hint ? " (" : "", hint,
            *hint ? ")" : "");
    _exit(1);
}

static void put_path(char *out, const char *head, const char *middle, const char *tail)
{
    if (snprintf(out, PATH_MAX, "%s%s%s", head, middle, tail) >= PATH_MAX)
        errno = ENAMETOOLONG, fail("cannot use", head, "");
}

/* Make descriptors 0 to 2 exist, so that no file opened later is taken for a standard stream. */
static void fill_standard_streams(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            _exit(1);
}

/* The descriptors from 3 on that the caller left open, as "3,7": Python must not mistake its own for them. */
static void list_descriptors(char *out, size_t size)
{
    size_t used = 0;
    DIR *listing = opendir("/proc/self/fd");
    out[0] = 0;
    if (!listing)
        fail("cannot open", "/proc/self/fd", "is /proc mounted?");
    for (struct dirent *entry; (entry = readdir(listing)) && used + 12 < size;) {
        int fd = atoi(entry->d_name);
        if (fd > 2 && fd != dirfd(listing))
            used += (size_t)sprintf(out + used, used ? ",%d" : "%d", fd);
    }
    closedir(listing);
}

/*
 * Read DIR/ocirt-python, whose first line the installer made name its own interpreter, into `python`; a line "# root: PATH"
 * (editable installs) goes to `root`. uv writes a name that is long, has a space or is relative as a line of shell:
 * '''exec' [...]'PYTHON' "$0" "$@".
 */
static void read_companion(const char *dir, char *python, char *root)
{
    char text[2 * PATH_MAX] = "#!python3", path[PATH_MAX], *name = text + 2, *line;
    put_path(path, dir, "/ocirt-python", "");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    else if (errno != ENOENT)
        fail("cannot open", path, "");
    if (got >= 0)
        text[got] = 0;
    if ((line = strstr(text, "\n# root: "))) {
        line[9 + strcspn(line + 9, "\n")] = 0;
        put_path(root, line + 9, "", "");
    }
    if (!strncmp(text, "#!/bin/sh\n'''exec' ", 19) && (name = strchr(text + 19, '\'')))
        *strchrnul(++name, '\'') = 0;
    if (!name || strncmp(text, "#!", 2))
        errno = ENOEXEC, fail("cannot read", path, "its first line must name a Python; install ocirt again");
    name[strcspn(name, "\r\n")] = 0;
    put_path(path, *name == '/' ? "" : dir, *name == '/' ? "" : "/", name);
    if (!realpath(path, python))
        fail("cannot find its Python", path, "install ocirt again with a Python that is there");
}

/* The dynamic loader that `path` asks for, if a search path of it begins with $ORIGIN; else "". */
static void origin_loader(const char *path, char *loader)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    loader[0] = 0;
    if (fd < 0 || fstat(fd, &st))
        fail("cannot open", path, "");
    const char *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const ElfW(Ehdr) *head = (const void *)file;
    close(fd);
    if (file == MAP_FAILED || (size_t)st.st_size < sizeof *head || memcmp(file, ELFMAG, SELFMAG))
        errno = ENOEXEC, fail("cannot run", path, "not a Python executable");
    const ElfW(Phdr) *part = (const void *)(file + head->e_phoff), *end = part + head->e_phnum, *interp = NULL, *dyn = NULL;
    for (const ElfW(Phdr) *p = part; p < end; p++) {
        interp = p->p_type == PT_INTERP ? p : interp;
        dyn = p->p_type == PT_DYNAMIC ? p : dyn;
    }
    if (!interp || !dyn)
        return;
    const ElfW(Dyn) *first = (const void *)(file + dyn->p_offset);
    for (const ElfW(Dyn) *search = first; search->d_tag != DT_NULL; search++) {
        if (search->d_tag != DT_RPATH && search->d_tag != DT_RUNPATH)
            continue;
        for (const ElfW(Dyn) *table = first; table->d_tag != DT_NULL; table++)
            for (const ElfW(Phdr) *p = part; table->d_tag == DT_STRTAB && p < end; p++)
                if (p->p_type == PT_LOAD && table->d_un.d_ptr - p->p_vaddr < p->p_filesz) {
                    const char *names = file + p->p_offset + (table->d_un.d_ptr - p->p_vaddr);
                    if (strstr(names + search->d_un.d_val, "ORIGIN"))
                        put_path(loader, file + interp->p_offset, "", "");
                }
    }
}

/* A private copy of `path`: a sealed memfd, or where vm.memfd_noexec=2 forbids that, a file without a name. */
static int copy_file(const char *path)
{
    static const char *const places[] = {"/tmp", "/var/tmp", "/dev/shm"};
    char name[64];
    int from = open(path, O_RDONLY | O_CLOEXEC), to = memfd_create("ocirt", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC_);
    if (to < 0 && errno == EINVAL) /* before Linux 6.3 */
        to = memfd_create("ocirt", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    for (size_t i = 0; to < 0 && i < sizeof places / sizeof *places; i++)
        to = open(places[i], O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0500);
    ssize_t copied = to < 0 ? -1 : 1;
    while (copied > 0)
        copied = sendfile(to, from, NULL, 1 << 30);
    if (copied < 0)
        fail("cannot copy", path, "needs memfd_create or a writable /tmp");
    close(from);
    if (!fcntl(to, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE))
        return to;
    snprintf(name, sizeof name, "/proc/self/fd/%d", to); /* a file that is open for writing cannot be executed */
    from = open(name, O_RDONLY | O_CLOEXEC);
    close(to);
    return from;
}

/* Execute `path` so that nobody can write to the file through /proc/PID/exe (CVE-2019-5736). */
static _Noreturn void execute(const char *path, char **argv)
{
    uint64_t attributes[4] = {ATTR_RDONLY, 0, 0, 0}; /* struct mount_attr: attr_set first */
    struct stat st;
    int fd = (int)syscall(NR_OPEN_TREE, AT_FDCWD, path, OPEN_TREE_CLONE_ | O_CLOEXEC);
    if (fd < 0 || syscall(NR_MOUNT_SETATTR, fd, "", AT_EMPTY_PATH, attributes, sizeof attributes)) {
        if (errno != EPERM && errno != ENOSYS && errno != EINVAL)
            fail("cannot clone", path, "");
        /* Rootless: root's file stays out of reach, as only our own uid and subordinate ones go into a container. */
        if (geteuid() && !stat(path, &st) && !st.st_uid && !(st.st_mode & 022)) {
            execve(path, argv, environ);
            fail("cannot execute", path, "");
        }
        fd = copy_file(path);
    }
    syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
    fail("cannot execute", path, "");
}

int main(int argc, char **argv)
{
    static char dir[PATH_MAX], python[PATH_MAX], loader[PATH_MAX], root[PATH_MAX], descriptors[8192];
    char *next[argc + 24], **out = next, *slash;
    fill_standard_streams();
    list_descriptors(descriptors, sizeof descriptors);
    if (readlink("/proc/self/exe", dir, sizeof dir - 1) < 0 || !(slash = strrchr(dir, '/')))
        fail("cannot find itself by", "/proc/self/exe", "is /proc mounted?");
    *slash = 0;
    read_companion(dir, python, root);
    origin_loader(python, loader);
    if (*loader) /* $ORIGIN is read from /proc/self/exe, unless the loader is told the program's name */
        for (char *const *word = (char *const[]){loader, "--argv0", python, NULL}; *word; word++)
            *out++ = *word;
    for (char *const *word = (char *const[]){python, "-I", "-S", "-B", "-X", "utf8", "-c", BOOT, NULL}; *word; word++)
        *out++ = *word;
    *out++ = descriptors, *out++ = dir, *out++ = root;
    *out++ = argc ? basename(argv[0]) : "ocirt";
    for (int i = 1; i < argc; i++)
        *out++ = argv[i];
    *out = NULL;
    execute(*loader ? loader : python, next);
}
