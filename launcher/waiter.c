/* The init of a created container while it waits for `start`: 40 KiB instead of a Python of 3.5 MiB, and quicker to go on.
   It makes the system calls that ocirt/kernel/steps/waiter.py has written down, one after the other; the first waits, the last is
   execve(2). It has no C library, allocates nothing, and decides nothing but what to do when a call fails. */
#include <stdint.h>
#include <sys/mman.h>
#include "call.h"

#define BASE 0x20000000L /* where addresses in the calls' arguments expect the file: waiter.py knows it too */

struct queued {
    int64_t number, arguments[6], step;
};
struct program {
    int64_t size, count, report, phase; /* two descriptors: where failures are told, and where they are kept */
    struct queued calls[];
};

/* As ocirt/kernel/messages.py has it: `f`, the step, the errno, and two texts, here empty. */
struct __attribute__((packed)) failure {
    char kind;
    uint32_t step;
    int32_t error;
    char texts[1];
};

__attribute__((used)) static _Noreturn void start(char **stack)
{
    long fd = 0;
    for (const char *digit = stack[2]; (long)stack[0] == 2 && *digit >= '0' && *digit <= '9'; digit++)
        fd = fd * 10 + *digit - '0';
    int64_t size = 0;
    if (call(SYS_pread64, fd, &size, sizeof size, 0) != sizeof size)
        call(SYS_exit_group, 126);
    const struct program *program = (const void *)call(SYS_mmap, BASE, size, PROT_READ | PROT_WRITE,
                                                       MAP_PRIVATE | MAP_FIXED_NOREPLACE, fd, 0);
    if ((long)program != BASE)
        call(SYS_exit_group, 126);
    for (const struct queued *next = program->calls; next < program->calls + program->count; next++) {
        const int64_t *with = next->arguments;
        long result = call6(next->number, with[0], with[1], with[2], with[3], with[4], with[5]);
        if (result < 0 && result > -4096) {
            struct failure failed = {'f', (uint32_t)next->step, (int32_t)-result, ""};
            int32_t phase = (int32_t)result;
            call(SYS_write, program->report, &failed, sizeof failed);
            call(SYS_pwrite64, program->phase, &phase, sizeof phase, 0);
            break;
        }
    }
    for (;;)
        call(SYS_exit_group, 1);
}
