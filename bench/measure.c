/* measure FD COUNT COMMAND...: run COUNT copies of a command at once and write what they took to descriptor FD.
 *
 * One line: wall nanoseconds from the first fork to the last end, user and system microseconds of all copies with the children
 * that they waited for, the largest resident set of a single process in KiB, the first exit code that is not 0 (128+N: signal).
 * measure memlock COMMAND...: run a command whose setrlimit(RLIMIT_MEMLOCK) does nothing and succeeds. crun fails where root may
 * not raise that limit, although kernels since 5.11 do not ask for it when a device program is loaded.
 *
 * Small and static, as a child counts the memory of the process that it was forked from until its execve.
 */
#define _GNU_SOURCE
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))

static void ignore_memlock(void)
{
	struct sock_filter code[] = {
		LOAD(nr),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prlimit64, 0, 5),
		LOAD(args[1]),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RLIMIT_MEMLOCK, 0, 3),
		LOAD(args[2]), /* the low half of the new limit's address */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "memlock")) {
		ignore_memlock();
		execvp(argv[2], argv + 2);
		return 127;
	}
	if (argc < 4)
		return 2;
	int fd = atoi(argv[1]), count = atoi(argv[2]), code = 0;
	long long user = 0, system = 0, start = now();
	long memory = 0;
	pid_t children[1024];

	for (int i = 0; i < count && i < 1024; i++) {
		children[i] = fork();
		if (children[i] < 0)
			return 2;
		if (!children[i]) {
			close(fd);
			execvp(argv[3], argv + 3);
			_exit(127);
		}
	}
	for (int i = 0; i < count && i < 1024; i++) {
		struct rusage usage;
		int status;
		if (wait4(children[i], &status, 0, &usage) < 0)
			return 2;
		user += usage.ru_utime.tv_sec * 1000000LL + usage.ru_utime.tv_usec;
		system += usage.ru_stime.tv_sec * 1000000LL + usage.ru_stime.tv_usec;
		if (usage.ru_maxrss > memory)
			memory = usage.ru_maxrss;
		if (status && !code)
			code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	dprintf(fd, "%lld %lld %lld %ld %d\n", now() - start, user, system, memory, code);
	return 0;
}
