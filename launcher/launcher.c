/* ocirt: starts ocirt's Python code isolated, from a file of the interpreter that no container can write to (docs/launcher.md).
   It does without a C library, whose own start costs 0.3 ms on a virtual machine: it asks the processor for its features, which
   traps. What it executes: PYTHON -I -S -B -X utf8 -c BOOT DIRECTORY/ HOME NAME ARGUMENTS... */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <linux/limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "boot.h" /* BOOT, made from boot.py */
#include "call.h"

enum { NR_OPEN_TREE = 428, NR_MOUNT_SETATTR = 442, TREE_CLONE = 1, ATTR_RDONLY = 1, EMPTY_PATH = 0x1000 }; /* linux/mount.h */
enum { CLOSE_ON_EXEC = 1, MAY_SEAL = 2, MAY_EXEC = 16, ADD_SEALS = 1033, ALL_SEALS = 15, TMPFILE = 020000000 | O_DIRECTORY };

#define open_file(path, flags) call(SYS_openat, AT_FDCWD, path, (flags) | O_CLOEXEC, 0500)

/* Put the texts together, cut off before `end`, and return where the next would go. A path that is cut off fails when used. */
static char *join(char *to, const char *end, const char *first, const char *second, const char *third)
{
    for (const char *texts[] = {first, second, third}, **text = texts; text < texts + 3; text++)
        for (const char *from = *text; *from && to < end - 1; *to = 0)
            *to++ = *from++;
    return to;
}

/* What follows `mark` at the start of `text`, or with `anywhere` further on, up to `stop`; NULL if `mark` is not there. */
static char *after(char *text, const char *mark, int anywhere, char stop)
{
    size_t same = 0;
    while (mark[same] && text[same] == mark[same])
        same++;
    if (mark[same])
        return anywhere && *text ? after(text + 1, mark, 1, stop) : NULL;
    for (char *at = text + same; stop && *at; at++)
        if (*at == stop)
            *at = 0;
    return text + same;
}

static _Noreturn void fail(const char *what, const char *path, long error, const char *hint)
{
    static char text[3 * PATH_MAX];
    const char *end = text + sizeof text;
    const char *name = error == -ENOENT ? "ENOENT" : error == -EACCES ? "EACCES" : error == -EPERM ? "EPERM"
                     : error == -EMFILE || error == -ENFILE ? "too many open files" : "failed";
    call(SYS_write, 2, text, join(join(text, end, "ocirt: ", what, path), end, ": ", name, hint) - text);
    for (;;)
        call(SYS_exit_group, 1);
}

/* The link of an open descriptor, for calls that take a path. */
static const char *descriptor(long fd)
{
    static char path[32];
    char digits[12] = "", *digit = digits + sizeof digits - 1;
    for (*--digit = (char)('0' + fd % 10); fd /= 10;)
        *--digit = (char)('0' + fd % 10);
    join(path, path + sizeof path, "/proc/self/fd/", digit, "");
    return path;
}

/* Read DIRECTORY/ocirt-python. In its first line the installer named its own interpreter (uv: in a line of shell, if the path is
   long, relative or has a space); the real path goes to `python`. A line "# home: PATH" gives `home` (editable installs). */
static void read_companion(const char *directory, char *python, char *home)
{
    static char text[2 * PATH_MAX] = "#!python3", path[2 * PATH_MAX];
    join(path, path + sizeof path, directory, "ocirt-python", "");
    long fd = open_file(path, O_RDONLY), got = fd < 0 ? fd : call(SYS_read, fd, text, sizeof text - 1);
    if (got < 0 && got != -ENOENT)
        fail("cannot read ", path, got, "\n");
    char *line = after(text, "\n# home: ", 1, '\n'), *name = after(text, "#!/bin/sh\n'''exec' ", 0, 0);
    if (line)
        join(home, home + 2 * PATH_MAX, line, "", "");
    name = name ? after(name, "'", 1, '\'') : after(text, "#!", 0, '\n');
    if (name && (line = after(name, " -", 1, 0))) /* pipx adds an option */
        line[-2] = 0;
    if (!name || !*name)
        fail("cannot read ", path, -ENOEXEC, " (its first line must name a Python: install ocirt again)\n");
    join(path, path + sizeof path, *name == '/' ? "" : directory, name, "");
    fd = open_file(path, O_PATH);
    got = fd < 0 ? fd : call(SYS_readlinkat, AT_FDCWD, descriptor(fd), python, PATH_MAX - 1);
    if (got < 0)
        fail("cannot use its Python, ", path, got, " (install ocirt again, with a Python that is there)\n");
}

/* The dynamic loader that `path` asks for, if a library search path in it has $ORIGIN; else "". */
static void find_origin_loader(const char *path, char *loader)
{
    static struct stat status;
    long fd = open_file(path, O_RDONLY), error = fd < 0 ? fd : call(SYS_fstat, fd, &status);
    char *file = (char *)call(SYS_mmap, 0, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (error || (long)file < 0 || status.st_size < 4096 || !after(file, ELFMAG, 0, 0))
        fail("cannot execute ", path, error ? error : -ENOEXEC, "\n");
    const ElfW(Ehdr) *head = (void *)file;
    const ElfW(Phdr) *part = (void *)(file + head->e_phoff), *end = part + head->e_phnum, *interpreter = NULL;
    uintptr_t strings = 0, search = 0;
    for (const ElfW(Phdr) *p = part; p < end; interpreter = p->p_type == PT_INTERP ? p : interpreter, p++)
        for (ElfW(Dyn) *entry = (void *)(file + p->p_offset); p->p_type == PT_DYNAMIC && entry->d_tag != DT_NULL; entry++)
            if (entry->d_tag == DT_STRTAB || entry->d_tag == DT_RPATH || entry->d_tag == DT_RUNPATH)
                *(entry->d_tag == DT_STRTAB ? &strings : &search) = entry->d_un.d_ptr;
    for (const ElfW(Phdr) *p = part; interpreter && search && p < end; p++)
        if (p->p_type == PT_LOAD && strings - p->p_vaddr < p->p_filesz
            && after(file + p->p_offset + (strings - p->p_vaddr) + search, "ORIGIN", 1, 0))
            join(loader, loader + 2 * PATH_MAX, file + interpreter->p_offset, "", "");
}

/* A private copy of `path`: a sealed memfd, or where vm.memfd_noexec=2 forbids that, a file without a name. */
static long copy_file(const char *path)
{
    long from = open_file(path, O_RDONLY), copied = 1, to = call(SYS_memfd_create, "ocirt", CLOSE_ON_EXEC | MAY_SEAL | MAY_EXEC);
    if (to == -EINVAL) /* before Linux 6.3 */
        to = call(SYS_memfd_create, "ocirt", CLOSE_ON_EXEC | MAY_SEAL);
    for (const char *places[] = {"/tmp", "/var/tmp", "/dev/shm"}, **place = places; to < 0 && place < places + 3; place++)
        if ((to = open_file(*place, TMPFILE | O_EXCL | O_RDWR)) >= 0 && call(SYS_faccessat, AT_FDCWD, descriptor(to), 1))
            to = -EACCES; /* mounted noexec */
    while (to >= 0 && copied > 0)
        copied = call(SYS_sendfile, to, from, 0, 1 << 30);
    if (to < 0 || copied < 0)
        fail("cannot copy ", path, to < 0 ? to : copied, " (that needs memfd_create, or a /tmp to write to)\n");
    if (!call(SYS_fcntl, to, ADD_SEALS, ALL_SEALS))
        return to;
    from = open_file(descriptor(to), O_RDONLY);
    call(SYS_close, to); /* what is open for writing cannot be executed */
    return from;
}

/* Execute `path` so that nobody can write to the file through /proc/PID/exe (CVE-2019-5736). */
static _Noreturn void execute(const char *path, char **argv, char **environment)
{
    uint64_t attributes[4] = {ATTR_RDONLY, 0, 0, 0}; /* struct mount_attr, which begins with attr_set */
    static struct stat status = {.st_mode = 022}; /* not known to be safe */
    long fd = call(NR_OPEN_TREE, AT_FDCWD, path, TREE_CLONE | O_CLOEXEC);
    long error = fd < 0 ? fd : call(NR_MOUNT_SETATTR, fd, "", EMPTY_PATH, attributes, sizeof attributes);
    if (error < 0 && error != -EPERM && error != -ENOSYS && error != -EINVAL)
        fail("cannot clone ", path, error, "\n");
    /* Rootless: a file of root's is out of reach, as only our own uid and subordinate ones go into a container. */
    if (error < 0 && call(SYS_geteuid))
        call(SYS_newfstatat, AT_FDCWD, path, &status, 0);
    if (!status.st_uid && !(status.st_mode & 022))
        fail("cannot execute ", path, call(SYS_execve, path, argv, environment), "\n");
    if (error < 0)
        fd = copy_file(path);
    fail("cannot execute ", path, call(SYS_execveat, fd, "", argv, environment, EMPTY_PATH), "\n");
}

__attribute__((used)) static _Noreturn void start(char **stack)
{
    static char directory[PATH_MAX], python[PATH_MAX], loader[2 * PATH_MAX], home[2 * PATH_MAX];
    char **argv = stack + 1, *name = "ocirt";
    for (int fd = 0; fd < 3; fd++) /* so that no file opened later is taken for a standard stream */
        if (call(SYS_fcntl, fd, F_GETFD) < 0 && call(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR) != fd)
            call(SYS_exit_group, 1);
    long argc = (long)stack[0], got = call(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", directory, PATH_MAX - 1);
    if (got < 0)
        fail("cannot find itself by ", "/proc/self/exe", got, " (is /proc mounted?)\n");
    while (directory[--got] != '/')
        directory[got] = 0;
    for (char *at = argc ? name = argv[0] : ""; *at; at++)
        name = *at == '/' ? at + 1 : name;
    read_companion(directory, python, home);
    find_origin_loader(python, loader);
    /* The loader, told the program's name, does not look at /proc/self/exe for $ORIGIN. */
    static char *const fixed[] = {loader, "--argv0", python, python, "-I", "-S", "-B", "-X", "utf8", "-c", BOOT, directory, home};
    char *next[sizeof fixed / sizeof *fixed + (size_t)argc + 2], **out = next;
    for (char *const *word = fixed + (*loader ? 0 : 3); word < fixed + sizeof fixed / sizeof *fixed; word++)
        *out++ = *word;
    *out++ = name;
    for (long i = argc > 0; i <= argc; i++)
        *out++ = argv[i]; /* with the NULL at the end */
    execute(next[0], next, argv + argc + 1);
}
