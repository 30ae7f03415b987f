/* The cheapest HTTP/1.1 server that keeps a client busy: one thread, epoll, keep-alive, one fixed answer.
 *
 *   server ANSWER_FILE INTERVAL_US [N_PORTS [N_PHASES]]
 *
 * ANSWER_FILE holds the answer, framing included, as segments: a 4-byte little-endian length, then the bytes.
 * INTERVAL_US = 0: all segments in one write. Otherwise one segment for every open answer each INTERVAL_US,
 * so that each arrives in a packet of its own. With one phase (the default) all of them are sent at the same
 * moment; with more, an answer keeps the phase of the interval in which its request came.
 * Listens on N_PORTS ports of 127.0.0.1, as so many servers (default 1), and prints them in one line.
 * Requests need a Content-Length; what is in them does not matter. A GET is answered with a list of one model,
 * "bench", which makes a client's readiness checks happy; GET /stats with what was seen so far.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define MAX_FD 65536
#define HEAD_MAX 8192

struct conn {
    int open;
    int active;      /* index into its phase's list of open answers, -1 for none */
    int phase;
    size_t segment;  /* the next to be sent */
    size_t sent;     /* bytes of the answer that are out */
    size_t due;      /* bytes of the answer that should be; more than sent only if the socket is full */
    int full;        /* waiting for EPOLLOUT */
    size_t head_len; /* bytes of the request head seen so far */
    long body_left;  /* bytes of the request body still to come, -1 while in the head */
    int is_get;
    int is_stats;
    char head[HEAD_MAX];
};

static struct conn *conns[MAX_FD];
static struct {
    int fds[MAX_FD], n;
} *phases; /* the open answers of each */
static int n_phases = 1;
static int now_phase;
static int n_open;
static char *answer;
static size_t answer_len;
static size_t *segments; /* where each begins, and where the last ends */
static size_t n_segments;
static long interval_us;
static int ep;
static long n_posts;
static int peak_open; /* most paced answers that were open at one time */

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void load(const char *path) {
    FILE *f = fopen(path, "rb");
    uint32_t len;
    if (!f) die(path);
    segments = calloc(1, sizeof *segments);
    while (fread(&len, 4, 1, f) == 1) {
        answer = realloc(answer, answer_len + len);
        if (fread(answer + answer_len, 1, len, f) != len) die("short segment");
        answer_len += len;
        segments = realloc(segments, (++n_segments + 1) * sizeof *segments);
        segments[n_segments] = answer_len;
    }
    fclose(f);
}

static void end_answer(struct conn *c) {
    int last = phases[c->phase].fds[--phases[c->phase].n];
    n_open--;
    phases[c->phase].fds[c->active] = last;
    conns[last]->active = c->active;
    c->active = -1;
}

static void drop(int fd) {
    struct conn *c = conns[fd];
    if (c->active >= 0) end_answer(c);
    c->open = 0;
    close(fd);
}

static void watch(int fd, uint32_t events, int op) {
    struct epoll_event e = {.events = events, .data.fd = fd};
    if (epoll_ctl(ep, op, fd, &e) < 0) die("epoll_ctl");
}

/* Sends what is due; the rest follows when the socket has room again. */
static void put(int fd, size_t due) {
    struct conn *c = conns[fd];
    c->due = due;
    if (c->full) return;
    ssize_t n = send(fd, answer + c->sent, due - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        drop(fd);
        return;
    }
    if (n > 0) c->sent += n;
    if (c->sent < due) {
        c->full = 1;
        watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
}

static void has_room(int fd) {
    conns[fd]->full = 0;
    watch(fd, EPOLLIN, EPOLL_CTL_MOD);
    put(fd, conns[fd]->due);
}

static void begin_answer(int fd) {
    struct conn *c = conns[fd];
    c->sent = 0;
    if (!interval_us) {
        put(fd, answer_len);
        return;
    }
    c->segment = 0;
    c->phase = now_phase;
    c->active = phases[now_phase].n++;
    phases[now_phase].fds[c->active] = fd;
    if (++n_open > peak_open) peak_open = n_open;
}

/* Short enough for an empty socket buffer, so that it never waits for room. */
static void answer_get(int fd) {
    char body[128], all[256];
    if (conns[fd]->is_stats)
        snprintf(body, sizeof body, "{\"posts\":%ld,\"peak_open\":%d}", n_posts, peak_open);
    else
        strcpy(body, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\"}]}");
    int len = snprintf(all, sizeof all,
                       "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                       strlen(body), body);
    if (send(fd, all, len, MSG_NOSIGNAL) != len) drop(fd);
}

static void tick(void) {
    now_phase = (now_phase + 1) % n_phases;
    for (int i = phases[now_phase].n - 1; i >= 0; i--) {
        int fd = phases[now_phase].fds[i];
        struct conn *c = conns[fd];
        size_t due = segments[++c->segment];
        if (c->segment == n_segments) end_answer(c);
        put(fd, due);
    }
}

static void take(int fd, const char *p, ssize_t n) {
    struct conn *c = conns[fd];
    while (n > 0) {
        if (c->body_left < 0) {
            size_t seen = c->head_len, room = HEAD_MAX - seen, part = (size_t)n < room ? (size_t)n : room;
            memcpy(c->head + seen, p, part);
            c->head_len += part;
            char *end = memmem(c->head, c->head_len, "\r\n\r\n", 4);
            if (!end) {
                if (c->head_len == HEAD_MAX) drop(fd);
                return;
            }
            *end = 0;
            c->is_get = !strncmp(c->head, "GET ", 4);
            c->is_stats = !strncmp(c->head, "GET /stats ", 11);
            char *length = strcasestr(c->head, "\r\ncontent-length:");
            c->body_left = length ? atol(length + 17) : 0;
            size_t used = end + 4 - c->head - seen;
            p += used;
            n -= used;
            c->head_len = 0;
        }
        ssize_t part = n < c->body_left ? n : c->body_left;
        c->body_left -= part;
        p += part;
        n -= part;
        if (c->body_left == 0) {
            c->body_left = -1;
            if (c->is_get) {
                answer_get(fd);
            } else {
                n_posts++;
                begin_answer(fd);
            }
            if (!c->open) return;
        }
    }
}

static void readable(int fd) {
    static char buf[1 << 20];
    ssize_t n = recv(fd, buf, sizeof buf, 0);
    if (n > 0)
        take(fd, buf, n);
    else if (n == 0 || errno != EAGAIN)
        drop(fd);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!conns[fd]) conns[fd] = malloc(sizeof **conns);
        *conns[fd] = (struct conn){.open = 1, .active = -1, .body_left = -1};
        watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

/* A new listener; its port is printed. */
static int listen_somewhere(void) {
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(fd, (struct sockaddr *)&addr, len) < 0 || listen(fd, 16384) < 0) die("listen");
    getsockname(fd, (struct sockaddr *)&addr, &len);
    watch(fd, EPOLLIN, EPOLL_CTL_ADD);
    printf("%d ", ntohs(addr.sin_port));
    return fd;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 5) {
        fprintf(stderr, "usage: %s ANSWER_FILE INTERVAL_US [N_PORTS [N_PHASES]]\n", argv[0]);
        return 2;
    }
    load(argv[1]);
    interval_us = atol(argv[2]);
    int n_ports = argc > 3 ? atoi(argv[3]) : 1;
    if (argc > 4) n_phases = atoi(argv[4]);
    phases = calloc(n_phases, sizeof *phases);

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    ep = epoll_create1(0);
    /* they are the first to be opened and are never closed, so that their numbers are one range */
    int first = -1, last = -1;
    for (int i = 0; i < n_ports; i++) {
        last = listen_somewhere();
        if (i == 0) first = last;
    }
    printf("\n");
    fflush(stdout);

    int timer = -1;
    if (interval_us) {
        timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
        long every_ns = interval_us * 1000 / n_phases;
        struct timespec every = {every_ns / 1000000000, every_ns % 1000000000};
        struct itimerspec spec = {every, every};
        timerfd_settime(timer, 0, &spec, NULL);
        watch(timer, EPOLLIN, EPOLL_CTL_ADD);
    }
    struct epoll_event events[1024];
    for (;;) {
        int n = epoll_wait(ep, events, 1024, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd >= first && fd <= last) {
                accept_all(fd);
            } else if (fd == timer) {
                uint64_t expirations;
                if (read(timer, &expirations, sizeof expirations) > 0) tick();
            } else if (conns[fd]->open) {
                if (events[i].events & EPOLLOUT) has_room(fd);
                if (conns[fd]->open && events[i].events & ~EPOLLOUT) readable(fd);
            }
        }
    }
}
