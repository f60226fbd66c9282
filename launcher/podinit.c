/* The init of a PID namespace that the containers of a pod share: ocirt/containers/podinit.py starts it. It reaps whom nobody waits
   for, and ends, and with it all processes of the namespace, when somebody outside asks for that by SIGTERM or SIGINT. Processes
   inside can't: what they send has their number in it, or a code that says it was not kill(2).
   It has no C library, allocates nothing, opens nothing, has no descriptors and no capabilities; its root is empty and read-only. */
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "call.h"

#define BIT(number) (1UL << ((number) - 1))

__attribute__((used)) static _Noreturn void start(char **stack)
{
    (void)stack;
    call(SYS_prctl, PR_SET_DUMPABLE, 0); /* the file can't be read, so it was not before either */
    call(SYS_prctl, PR_SET_NAME, "ocirt-pod");
    /* Blocked, and taken one by one: an init ignores signals that it handles by default, unless they are blocked. They were blocked
       by who executed this, so none is lost. */
    uint64_t wanted = BIT(SIGTERM) | BIT(SIGINT) | BIT(SIGCHLD);
    call(SYS_rt_sigprocmask, SIG_SETMASK, &wanted, 0, sizeof wanted);
    for (;;) {
        siginfo_t info;
        long number = call(SYS_rt_sigtimedwait, &wanted, &info, 0, sizeof wanted);
        if ((number == SIGTERM || number == SIGINT) && info.si_code == SI_USER && info.si_pid == 0)
            for (;;)
                call(SYS_exit_group, 0);
        while (call(SYS_wait4, -1, 0, WNOHANG, 0) > 0)
            ;
    }
}
