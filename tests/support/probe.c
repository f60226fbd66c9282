/* probe: says what a process inside a container was given. Static, no shell, no /proc needed except where noted.
 *
 *   probe                  one JSON object on stdout (see dump)
 *   probe stat PATH...     one JSON object a path: type, mode, numbers, owner, link target or errno
 *   probe catch            prints "ready", then the number of each signal that arrives; exits 0 after SIGTERM
 *   probe call NR [A...]   makes one system call, prints {"result": n, "errno": n}
 *   probe winsize          prints "rows cols" now and at each SIGWINCH; exits 0 when a line can be read from stdin
 *   probe write BYTES      writes that many bytes to stdout, 64 KiB at a time
 *   probe open PATH        opens for reading and writing, prints {"errno": n}
 *   probe notify TEXT      sends TEXT to NOTIFY_SOCKET, as sd_notify(3) does
 *   probe clocks           one JSON object: what the clocks say, in seconds
 *   probe leak             starts a sleeping grandchild in a session of its own, prints its pid, exits 0
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void string(const char *text)
{
	putchar('"');
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20 || *c > 0x7e)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
	putchar('"');
}

static void pair(const char *name, const char *value)
{
	printf(",\n\"%s\": ", name);
	string(value);
}

static void file(const char *name, const char *path)
{
	char text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0) {
		printf(",\n\"%s\": null", name);
	} else {
		text[n] = 0;
		if (n && text[n - 1] == '\n')
			text[n - 1] = 0;
		pair(name, text);
	}
	if (fd >= 0)
		close(fd);
}

static void descriptors(void)
{
	const char *comma = "";
	printf(",\n\"fds\": {");
	for (int fd = 0; fd < 4096; fd++) {
		struct stat st;
		if (fstat(fd, &st))
			continue;
		printf("%s\"%d\": {\"mode\": %u, \"dev\": %lu, \"ino\": %lu, \"rdev\": [%u, %u], \"uid\": %u, \"gid\": %u, \"tty\": %s, \"cloexec\": %s}",
		       comma, fd, st.st_mode, (unsigned long)st.st_dev, (unsigned long)st.st_ino, major(st.st_rdev),
		       minor(st.st_rdev), st.st_uid, st.st_gid, isatty(fd) ? "true" : "false",
		       fcntl(fd, F_GETFD) & FD_CLOEXEC ? "true" : "false");
		comma = ", ";
	}
	putchar('}');
}

static void capabilities(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};
	uint64_t bounding = 0, ambient = 0;
	syscall(SYS_capget, &header, data);
	for (int cap = 0; cap < 64; cap++) {
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
			bounding |= 1ull << cap;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1)
			ambient |= 1ull << cap;
	}
	printf(",\n\"caps\": {\"effective\": %llu, \"permitted\": %llu, \"inheritable\": %llu, \"bounding\": %llu, \"ambient\": %llu}",
	       (unsigned long long)data[1].effective << 32 | data[0].effective,
	       (unsigned long long)data[1].permitted << 32 | data[0].permitted,
	       (unsigned long long)data[1].inheritable << 32 | data[0].inheritable,
	       (unsigned long long)bounding, (unsigned long long)ambient);
}

static void limits(void)
{
	static const char *const names[] = {"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK",
					    "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
	printf(",\n\"rlimits\": {");
	for (int i = 0; i < 16; i++) {
		struct rlimit value;
		getrlimit(i, &value);
		printf("%s\"RLIMIT_%s\": [%llu, %llu]", i ? ", " : "", names[i], (unsigned long long)value.rlim_cur,
		       (unsigned long long)value.rlim_max);
	}
	putchar('}');
}

/* The kernel's own view: libc hides signals 32 and 33. */
static void signals(void)
{
	uint64_t mask = 0;
	const char *comma = "";
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8);
	printf(",\n\"signals_blocked\": %llu,\n\"signals_ignored\": [", (unsigned long long)mask);
	for (int number = 1; number <= 64; number++) {
		struct {
			void *handler;
			unsigned long flags;
			void *restorer;
			uint64_t mask;
		} action = {0};
		if (!syscall(SYS_rt_sigaction, number, NULL, &action, 8) && action.handler == (void *)1) {
			printf("%s%d", comma, number);
			comma = ", ";
		}
	}
	putchar(']');
}

static void groups(void)
{
	gid_t list[1024];
	int n = getgroups(1024, list);
	printf(",\n\"groups\": [");
	for (int i = 0; i < n; i++)
		printf("%s%u", i ? ", " : "", list[i]);
	putchar(']');
}

static void namespaces(void)
{
	static const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
	const char *comma = "";
	printf(",\n\"namespaces\": {"); /* empty without /proc */
	for (int i = 0; i < 8; i++) {
		char path[64], target[64];
		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		if (n < 0)
			continue;
		target[n] = 0;
		printf("%s\"%s\": \"%s\"", comma, names[i], target);
		comma = ", ";
	}
	putchar('}');
}

static void dump(int argc, char **argv)
{
	uid_t ruid, euid, suid;
	gid_t rgid, egid, sgid;
	char cwd[4096];
	struct utsname uts;
	cpu_set_t cpus;
	int deathsig = 0;
	mode_t mask = umask(0);

	umask(mask);
	getresuid(&ruid, &euid, &suid);
	getresgid(&rgid, &egid, &sgid);
	printf("{\"uid\": [%u, %u, %u],\n\"gid\": [%u, %u, %u]", ruid, euid, suid, rgid, egid, sgid);
	groups();
	printf(",\n\"pid\": %d, \"ppid\": %d, \"pgid\": %d, \"sid\": %d", getpid(), getppid(), getpgrp(), getsid(0));
	printf(",\n\"umask\": %u", mask);
	printf(",\n\"no_new_privs\": %d, \"seccomp\": %d, \"dumpable\": %d, \"securebits\": %d",
	       prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_SECCOMP), prctl(PR_GET_DUMPABLE), prctl(PR_GET_SECUREBITS));
	prctl(PR_GET_PDEATHSIG, &deathsig);
	printf(",\n\"pdeathsig\": %d, \"subreaper\": ", deathsig);
	int subreaper = 0;
	prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
	printf("%d", subreaper);
	printf(",\n\"cpus\": %d", sched_getaffinity(0, sizeof(cpus), &cpus) ? -1 : CPU_COUNT(&cpus));
	printf(",\n\"priority\": %d", getpriority(PRIO_PROCESS, 0));
	descriptors();
	capabilities();
	limits();
	signals();
	namespaces();
	if (getcwd(cwd, sizeof(cwd)))
		pair("cwd", cwd);
	uname(&uts);
	pair("hostname", uts.nodename);
	pair("domainname", uts.domainname);
	file("oom_score_adj", "/proc/self/oom_score_adj");
	file("uid_map", "/proc/self/uid_map");
	file("gid_map", "/proc/self/gid_map");
	file("setgroups", "/proc/self/setgroups");
	file("cgroup", "/proc/self/cgroup");
	printf(",\n\"args\": [");
	for (int i = 0; i < argc; i++) {
		printf("%s", i ? ", " : "");
		string(argv[i]);
	}
	printf("],\n\"env\": [");
	for (char **entry = environ; *entry; entry++) {
		printf("%s", entry == environ ? "" : ", ");
		string(*entry);
	}
	printf("]}\n");
}

static void show(const char *path)
{
	struct stat st;
	char target[4096];
	printf("{\"path\": ");
	string(path);
	if (lstat(path, &st)) {
		printf(", \"errno\": %d}\n", errno);
		return;
	}
	printf(", \"errno\": 0, \"type\": \"%s\", \"mode\": %u, \"rdev\": [%u, %u], \"uid\": %u, \"gid\": %u, \"size\": %lld, \"dev\": [%u, %u], \"ino\": %llu",
	       S_ISREG(st.st_mode) ? "file" : S_ISDIR(st.st_mode) ? "dir" : S_ISLNK(st.st_mode) ? "link" :
	       S_ISCHR(st.st_mode) ? "char" : S_ISBLK(st.st_mode) ? "block" : S_ISFIFO(st.st_mode) ? "fifo" : "socket",
	       st.st_mode & 07777, major(st.st_rdev), minor(st.st_rdev), st.st_uid, st.st_gid, (long long)st.st_size,
	       major(st.st_dev), minor(st.st_dev), (unsigned long long)st.st_ino);
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = 0;
		printf(", \"target\": ");
		string(target);
	}
	printf("}\n");
}

static void on_signal(int number)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d\n", number);
	if (write(1, text, n) < 0 || number == SIGTERM)
		_exit(0);
}

static void on_resize(int number)
{
	struct winsize size = {0};
	char text[32];
	(void)number;
	ioctl(0, TIOCGWINSZ, &size);
	int n = snprintf(text, sizeof(text), "%u %u\n", size.ws_row, size.ws_col);
	if (write(1, text, n) < 0)
		_exit(1);
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "dump";
	if (!strcmp(verb, "stat")) {
		for (int i = 2; i < argc; i++)
			show(argv[i]);
	} else if (!strcmp(verb, "catch")) {
		for (int number = 1; number <= 64; number++)
			if (number != SIGKILL && number != SIGSTOP && number != SIGCHLD)
				signal(number, on_signal);
		if (write(1, "ready\n", 6) < 0)
			return 1;
		for (;;)
			pause();
	} else if (!strcmp(verb, "call")) {
		long values[7] = {0};
		for (int i = 0; i < 7 && i + 2 < argc; i++)
			values[i] = strtol(argv[i + 2], NULL, 0);
		long result = syscall(values[0], values[1], values[2], values[3], values[4], values[5], values[6]);
		printf("{\"result\": %ld, \"errno\": %d}\n", result, result == -1 ? errno : 0);
	} else if (!strcmp(verb, "winsize")) {
		char line[256];
		struct sigaction action = {.sa_handler = on_resize, .sa_flags = SA_RESTART};
		sigaction(SIGWINCH, &action, NULL);
		on_resize(0);
		return read(0, line, sizeof(line)) < 0;
	} else if (!strcmp(verb, "write")) {
		static char block[65536];
		for (long long left = argc > 2 ? atoll(argv[2]) : 0; left > 0;) {
			ssize_t n = write(1, block, left < (long long)sizeof(block) ? (size_t)left : sizeof(block));
			if (n < 0)
				return 1;
			left -= n;
		}
	} else if (!strcmp(verb, "open")) {
		int fd = open(argv[2], O_RDWR | O_CLOEXEC | O_NONBLOCK);
		printf("{\"errno\": %d}\n", fd < 0 ? errno : 0);
	} else if (!strcmp(verb, "notify")) {
		struct sockaddr_un address = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		const char *path = getenv("NOTIFY_SOCKET");
		if (!path || !argv[2])
			return 2;
		strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
		if (sendto(fd, argv[2], strlen(argv[2]), 0, (struct sockaddr *)&address, sizeof(address)) < 0) {
			perror(path);
			return 1;
		}
	} else if (!strcmp(verb, "clocks")) {
		struct timespec now[2];
		clock_gettime(CLOCK_MONOTONIC, &now[0]);
		clock_gettime(CLOCK_BOOTTIME, &now[1]);
		printf("{\"monotonic\": %ld.%09ld, \"boottime\": %ld.%09ld}\n", (long)now[0].tv_sec, now[0].tv_nsec, (long)now[1].tv_sec,
		       now[1].tv_nsec);
	} else if (!strcmp(verb, "leak")) {
		pid_t child = fork();
		if (!child) {
			setsid();
			for (int fd = 0; fd < 3; fd++)
				close(fd);
			for (;;)
				pause();
		}
		printf("%d\n", child);
	} else {
		dump(argc, argv);
	}
	return fflush(stdout) ? 1 : 0;
}
