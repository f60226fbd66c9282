/* The init of a created container while it waits for `start`: 40 KiB instead of a Python of 3.5 MiB, and quicker to go on.
   It makes the system calls that ocirt/kernel/steps/waiter.py has written down, one after the other; the first waits, the last is
   execve(2). It has no C library, allocates nothing, and decides nothing but what to do when a call fails, and how a filter's
   listener comes to the agent: see ocirt/kernel/steps/listener.py, which does the same where init waits itself. */
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include "call.h"

#define BASE 0x20000000L /* where addresses in the calls' arguments expect the file: waiter.py knows it too */
#define CELL 0x10000000L /* where a call has mapped the page that init and the sender of its listener share: listener.py */
#define GO_ON (-1)
#define GIVE_UP (-2)
#define PATIENCE (1L << 35) /* looks at the page: ten seconds or more */

struct queued {
    int64_t number, arguments[6], step;
};
struct program {
    int64_t size, count, report, phase; /* two descriptors: where failures are told, and where they are kept */
    int64_t listener, page;             /* two more: where `start` takes the listener, and the page */
    struct queued calls[];
};

/* As ocirt/kernel/messages.py has it: `f`, the step, the errno, and two texts, here empty. */
struct __attribute__((packed)) failure {
    char kind;
    uint32_t step;
    int32_t error;
    char texts[1];
};

static volatile int64_t *const cell = (volatile int64_t *)CELL;

static _Noreturn void end(int status)
{
    for (;;)
        call(SYS_exit_group, status);
}

static int is_error(long result)
{
    return result < 0 && result > -4096;
}

static void tell(const struct program *program, long step, long result)
{
    struct failure failed = {'f', (uint32_t)step, (int32_t)-result, ""};
    int32_t phase = (int32_t)result;
    call(SYS_write, program->report, &failed, sizeof failed);
    call(SYS_pwrite64, program->phase, &phase, sizeof phase, 0);
}

/* Send the listener, the page and a pidfd of the sender; 0, or -errno. */
static long send_listener(const struct program *program, long way)
{
    long own = call(SYS_pidfd_open, call(SYS_getpid), 0);
    if (is_error(own))
        return own;
    char byte = 'l';
    struct iovec data = {&byte, sizeof byte};
    struct {
        uint64_t length;
        int32_t level, kind, fds[4];
    } control = {16 + 3 * sizeof(int32_t), SOL_SOCKET, SCM_RIGHTS, {(int32_t)*cell, (int32_t)program->page, (int32_t)own, 0}};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    long sent = call(SYS_sendmsg, way, &message, MSG_NOSIGNAL);
    return is_error(sent) ? sent : 0;
}

/* As the child that shares init's descriptors: wait for its listener, send it, and stay until somebody has it. */
static _Noreturn void be_sender(const struct program *program, long init, long step)
{
    call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
    while (*cell == 0) {
        struct timespec pause = {0, 100000};
        if (call(SYS_getppid) != init)
            end(0);
        call(SYS_nanosleep, &pause, 0);
    }
    long way = call(SYS_accept4, program->listener, 0, 0, SOCK_CLOEXEC);
    long result = is_error(way) ? way : send_listener(program, way);
    char answer[16];
    if (is_error(result))
        tell(program, step, result);
    if (is_error(result) || call(SYS_read, way, answer, sizeof answer) <= 0)
        *cell = GIVE_UP;
    end(0);
}

/* As init, which has a filter now: say which descriptor its listener is, and make no call until the agent has it. */
static void wait_for_agent(long listener)
{
    *cell = listener;
    for (long looks = 0; *cell >= 0 && looks < PATIENCE; looks++)
        ;
    if (*cell != GO_ON) {
        *cell = GIVE_UP;
        end(1);
    }
}

__attribute__((used)) static _Noreturn void start(char **stack)
{
    long fd = 0;
    for (const char *digit = stack[2]; (long)stack[0] == 2 && *digit >= '0' && *digit <= '9'; digit++)
        fd = fd * 10 + *digit - '0';
    int64_t size = 0;
    if (call(SYS_pread64, fd, &size, sizeof size, 0) != sizeof size)
        end(126);
    const struct program *program = (const void *)call(SYS_mmap, BASE, size, PROT_READ | PROT_WRITE,
                                                       MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0);
    if ((long)program != BASE)
        end(126);
    long init = call(SYS_getpid);
    for (const struct queued *next = program->calls; next < program->calls + program->count; next++) {
        const int64_t *with = next->arguments;
        long result = call6(next->number, with[0], with[1], with[2], with[3], with[4], with[5]);
        if (is_error(result)) {
            tell(program, next->step, result);
            break;
        }
        if (next->number == SYS_clone && result == 0)
            be_sender(program, init, next->step);
        if (next->number == SYS_seccomp && result > 0)
            wait_for_agent(result);
    }
    end(1);
}
