"""A wall clock that jumps under a command, and only under that: a small library loaded before libc.

It needs a C compiler. The monotonic clock is not touched: nothing may depend on the other one.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) {
    static const char *file;
    struct stat found;
    if (!file && !(file = getenv("LBRUN_CLOCK_JUMPS_WHEN"))) return 0;
    return stat(file, &found) == 0 ? found.st_size : 0;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, t);
    if (id == CLOCK_REALTIME && result == 0) t->tv_sec += shift();
    return result;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
/* who waits until a moment of this clock has to wait until that moment of the kernel's */
static struct timespec kernels(const struct timespec *moment) {
    struct timespec moved = *moment;
    moved.tv_sec -= shift();
    return moved;
}
int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    struct timespec moved = kernels(until);
    return real(c, m, &moved);
}
int pthread_cond_clockwait(pthread_cond_t *c, pthread_mutex_t *m, clockid_t id,
                           const struct timespec *until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    struct timespec moved = id == CLOCK_REALTIME ? kernels(until) : *until;
    return real(c, m, id, &moved);
}
int clock_nanosleep(clockid_t id, int flags, const struct timespec *until, struct timespec *rest) {
    static int (*real)(clockid_t, int, const struct timespec *, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_nanosleep");
    struct timespec moved = id == CLOCK_REALTIME && flags == TIMER_ABSTIME ? kernels(until) : *until;
    return real(id, flags, &moved, rest);
}
"""


def no_compiler() -> str | None:
    """Why the clock cannot be made to jump on this machine; None if it can."""
    return None if shutil.which("cc") else "there is no C compiler (cc)"


class JumpingClock:
    """environment: under which a command has this clock."""

    def __init__(self, folder: Path) -> None:
        """folder: for the library and the switch."""
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_SOURCE)
        compiler = shutil.which("cc") or "cc"
        subprocess.run(  # noqa: S603 - a compiler by its full path, our own source
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"],
            check=True,
            capture_output=True,
        )
        self._switch = folder / "clock.jump"
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "LBRUN_CLOCK_JUMPS_WHEN": str(self._switch),
        }

    def jump(self, seconds: int) -> None:
        """Put the clock forward by so many seconds from now on; 0: back to the right time."""
        # the size of a file is something that C can ask for at every call without reading
        with self._switch.open("ab") as file:
            file.truncate(seconds)
