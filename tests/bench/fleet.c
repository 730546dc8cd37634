/* The clients of a fleet of proxies, and the backends behind it: one process, one clock.
 *
 *   fleet
 *
 * It reads lines; times are in microseconds:
 *
 *   backend PORT SLOTS                a backend, from now on: it serves so many requests at once, and others wait in its queue
 *   proxy PORT                        backends and proxies are counted from 0
 *   request AT PROXY METHOD SERVICE   in order of time
 *   change AT BACKEND slow TIMES      it takes so many times as long
 *   change AT BACKEND fail            it answers 503 at once
 *   change AT BACKEND die             it closes its port and all connections
 *   change AT BACKEND live            it is as it was in the beginning
 *   go                                now is the time 0 of these requests and changes
 *
 * A request tells its service time in a header, so it is the same work for whichever backend gets it. A request without
 * the header is a health check, which takes no time. Requests come when the lines say so, however slow answers are.
 *
 * When all requests have ended, it prints a line for each of them: its status, or 0 where the connection broke or no
 * answer came in time; its latency from the moment at which it had to come; how late it was sent; how late its service
 * ended. Another line says how many times backends answered 503. Then it reads on, until its input ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SOCKETS = 65536, INPUT = 8192, MOST = 64, NAME = 8 };
typedef long long Micros;
static const Micros PATIENCE = 20000000;

typedef enum { CLOSED, TIMER, LINES, PORT, SERVED, ASKING, KEPT } Kind;

/* `serial` tells two connections with the same number apart. `of` is the backend, the kept one's proxy or the request. */
typedef struct {
    Kind kind;
    int of, filled;
    unsigned serial;
    char *input;
} Socket;

typedef struct {
    int socket, backend;
    unsigned serial, life;
    Micros service, at; /* How long it takes, and when it ends once it has begun. */
} Work;

typedef struct {
    Work *all;
    int first, count, room;
} Works;

typedef struct {
    int port, slots, listener, busy;
    unsigned life; /* Each death begins another one. */
    double times;
    int fails;
    Works waiting;
} Backend;

typedef struct {
    int port, kept_count;
    int kept[SOCKETS / MOST];
} Proxy;

typedef struct {
    Micros at;
    int backend;
    char kind[NAME];
    double times;
} Change;

typedef struct {
    Micros at, service, latency, delay, late;
    int proxy, status;
    char method[NAME];
} Request;

static Socket sockets[SOCKETS];
static Backend backends[MOST];
static Proxy proxies[MOST];
static Change changes[MOST];
static Request *requests;
static int backend_count, proxy_count, change_count, request_count, room, poll_, timer;
static int is_going, next_change, next_request, ended, refused;
static Works running; /* A heap by the end. */

static void die(const char *why) {
    perror(why);
    exit(1);
}

static Micros now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

static Work *added(Works *works) {
    if (works->first + works->count == works->room) {
        memmove(works->all, works->all + works->first, works->count * sizeof(Work));
        works->first = 0;
        if (works->count * 2 >= works->room) {
            works->room = 2 * works->room + MOST;
            if (!(works->all = realloc(works->all, works->room * sizeof(Work)))) die("no memory");
        }
    }
    return &works->all[works->first + works->count++];
}

static void run_until_end(Work work) {
    added(&running);
    Work *heap = running.all;
    int i = running.count - 1;
    for (; i > 0 && heap[(i - 1) / 2].at > work.at; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = work;
}

static Work next_to_end(void) {
    Work *heap = running.all, first = heap[0], last = heap[--running.count];
    int i = 0;
    for (int child; (child = 2 * i + 1) < running.count; i = child) {
        if (child + 1 < running.count && heap[child + 1].at < heap[child].at) child++;
        if (heap[child].at >= last.at) break;
        heap[i] = heap[child];
    }
    if (running.count) heap[i] = last;
    return first;
}

static Socket *opened(int fd, Kind kind, int of) {
    if (fd < 0 || fd >= SOCKETS) die("no socket");
    Socket *socket = &sockets[fd];
    if (!socket->input && !(socket->input = malloc(INPUT + 1))) die("no memory");
    socket->kind = kind, socket->of = of, socket->filled = 0;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poll_, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
    return socket;
}

static void closed(int fd) {
    sockets[fd].kind = CLOSED, sockets[fd].serial++;
    close(fd);
}

static int stream(void) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    return fd;
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* The value of a header of the message, or NULL. */
static const char *header(const char *message, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(message, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, length) && line[2 + length] == ':') {
            const char *value = line + 3 + length;
            return value + strspn(value, " ");
        }
    return NULL;
}

/* Backends */

static void listen_again(int number) {
    Backend *backend = &backends[number];
    if (backend->listener) return;
    struct sockaddr_in at = loopback(backend->port);
    backend->listener = stream();
    if (bind(backend->listener, (void *)&at, sizeof at) || listen(backend->listener, 1024)) die("a backend's port");
    opened(backend->listener, PORT, number);
}

static void answer(int fd, const char *first, Micros late) {
    char text[256];
    int length = sprintf(text, "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n%12lld", first, late);
    if (write(fd, text, length) != length) closed(fd);
}

static void serve(Backend *backend, Work work, Micros begins) {
    backend->busy++;
    work.at = begins + (Micros)(work.service * backend->times);
    work.life = backend->life;
    run_until_end(work);
}

/* The whole request that a backend has got. */
static void served(int fd) {
    Backend *backend = &backends[sockets[fd].of];
    const char *service = header(sockets[fd].input, "x-service");
    Work work = {.socket = fd, .serial = sockets[fd].serial, .backend = sockets[fd].of};
    if (service) work.service = atoll(service);
    sockets[fd].filled = 0;
    if (backend->fails) {
        refused += !!service;
        answer(fd, "503 Service Unavailable", 0);
    } else if (work.service == 0) {
        answer(fd, "200 OK", 0);
    } else if (backend->busy < backend->slots) {
        serve(backend, work, now());
    } else {
        *added(&backend->waiting) = work;
    }
}

/* The next one begins at the very end of this one, however late the process notices. */
static void service_ended(void) {
    Work work = next_to_end();
    Backend *backend = &backends[work.backend];
    if (work.life != backend->life) return;
    backend->busy--;
    while (backend->waiting.count) {
        Work next = backend->waiting.all[backend->waiting.first++];
        backend->waiting.count--;
        if (sockets[next.socket].serial != next.serial) continue;
        serve(backend, next, work.at);
        break;
    }
    if (sockets[work.socket].serial == work.serial) answer(work.socket, "200 OK", now() - work.at);
}

static void change(const Change *to) {
    Backend *backend = &backends[to->backend];
    if (!strcmp(to->kind, "slow")) {
        backend->times = to->times;
    } else if (!strcmp(to->kind, "fail")) {
        backend->fails = 1;
    } else if (!strcmp(to->kind, "live")) {
        backend->times = 1, backend->fails = 0;
    } else {
        closed(backend->listener);
        backend->listener = 0, backend->busy = 0, backend->waiting.count = 0, backend->life++;
        for (int fd = 0; fd < SOCKETS; fd++)
            if (sockets[fd].kind == SERVED && sockets[fd].of == to->backend) closed(fd);
        return;
    }
    listen_again(to->backend);
}

/* Clients */

static void finished(int fd, int status, int keeps) {
    Request *request = &requests[sockets[fd].of];
    Proxy *proxy = &proxies[request->proxy];
    request->status = status, request->latency = now() - request->at;
    ended++;
    if (keeps && proxy->kept_count < SOCKETS / MOST) {
        sockets[fd].kind = KEPT, sockets[fd].filled = 0, sockets[fd].of = request->proxy;
        proxy->kept[proxy->kept_count++] = fd;
    } else {
        closed(fd);
    }
}

static void ask(int number) {
    Request *request = &requests[number];
    Proxy *proxy = &proxies[request->proxy];
    int fd;
    request->delay = now() - request->at;
    if (proxy->kept_count) {
        fd = proxy->kept[--proxy->kept_count];
        sockets[fd].kind = ASKING, sockets[fd].of = number;
    } else {
        struct sockaddr_in at = loopback(proxy->port);
        fd = stream();
        if (connect(fd, (void *)&at, sizeof at)) die("a proxy does not listen");
        opened(fd, ASKING, number);
    }
    char text[256];
    int length = sprintf(text, "%s / HTTP/1.1\r\nHost: fleet\r\nX-Service: %lld\r\nContent-Length: 0\r\n\r\n", request->method,
                         request->service);
    if (write(fd, text, length) != length) finished(fd, 0, 0);
}

/* What a client has got so far. */
static void answered(int fd) {
    Socket *socket = &sockets[fd];
    char *end = strstr(socket->input, "\r\n\r\n");
    if (!end) return;
    const char *length = header(socket->input, "content-length"), *connection = header(socket->input, "connection");
    const char *body = end + 4, *all = socket->input + socket->filled;
    int is_whole = length ? all - body >= atol(length) : all - body >= 5 && !strcmp(all - 5, "0\r\n\r\n");
    if (!is_whole) return;
    int status = atoi(socket->input + 9);
    if (status == 200) requests[socket->of].late = atoll(body);
    finished(fd, status, !connection || strncasecmp(connection, "close", 5));
}

static void forget_kept(int fd) {
    Proxy *proxy = &proxies[sockets[fd].of];
    for (int i = 0; i < proxy->kept_count; i++)
        if (proxy->kept[i] == fd) proxy->kept[i] = proxy->kept[--proxy->kept_count];
    closed(fd);
}

/* Lines */

static void go(void) {
    Micros start = now();
    for (int i = 0; i < change_count; i++) changes[i].at += start;
    for (int i = 0; i < request_count; i++) requests[i].at += start;
    is_going = 1, next_change = 0, next_request = 0, ended = 0, refused = 0;
}

static void gone(void) {
    for (Request *it = requests; it < requests + request_count; it++)
        printf("%d %lld %lld %lld\n", it->status, it->latency, it->delay, it->late);
    printf("refused %d\n", refused);
    fflush(stdout);
    is_going = 0, change_count = 0, request_count = 0;
}

static void take(const char *line) {
    if (backend_count == MOST || proxy_count == MOST || change_count == MOST) die("too many");
    if (request_count == room && !(requests = realloc(requests, (room = 2 * room + 1024) * sizeof *requests)))
        die("no memory");
    Backend *backend = &backends[backend_count];
    Change *to = &changes[change_count];
    Request *request = &requests[request_count];
    *request = (Request){0};
    if (sscanf(line, "request %lld %d %7s %lld", &request->at, &request->proxy, request->method, &request->service) == 4) {
        request_count++;
    } else if (sscanf(line, "change %lld %d %7s %lf", &to->at, &to->backend, to->kind, &to->times) >= 3) {
        change_count++;
    } else if (sscanf(line, "proxy %d", &proxies[proxy_count].port) == 1) {
        proxy_count++;
    } else if (sscanf(line, "backend %d %d", &backend->port, &backend->slots) == 2) {
        backend->times = 1;
        listen_again(backend_count++);
    } else if (!strcmp(line, "go")) {
        go();
    } else {
        fprintf(stderr, "fleet: no such line: %s\n", line);
        exit(1);
    }
}

static void take_lines(Socket *from) {
    char *line = from->input, *end;
    for (; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        take(line);
    }
    from->filled = strlen(line);
    memmove(from->input, line, from->filled);
}

/* The loop */

static void readable(int fd) {
    Socket *socket = &sockets[fd];
    if (socket->kind == PORT) {
        int on = 1, one = accept(fd, NULL, NULL);
        if (one < 0) return;
        setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        opened(one, SERVED, socket->of);
        return;
    }
    if (socket->kind == TIMER || socket->kind == CLOSED) return;
    char *to = socket->input + socket->filled;
    size_t most = INPUT - socket->filled;
    /* An event can be of an older connection of that number: then there is nothing to read. */
    ssize_t n = socket->kind == LINES ? read(fd, to, most) : recv(fd, to, most, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (socket->kind == LINES) exit(0);
        else if (socket->kind == ASKING) finished(fd, 0, 0);
        else if (socket->kind == KEPT) forget_kept(fd);
        else closed(fd);
        return;
    }
    socket->filled += n;
    socket->input[socket->filled] = 0;
    if (socket->kind == LINES) take_lines(socket);
    else if (socket->kind == ASKING) answered(fd);
    else if (socket->kind == KEPT) forget_kept(fd); /* An answer that nobody asked for, as 408 is. */
    else if (strstr(socket->input, "\r\n\r\n")) served(fd);
}

static void wait_until(Micros at) {
    struct itimerspec when = {.it_value = {.tv_sec = at / 1000000, .tv_nsec = at % 1000000 * 1000}};
    if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL)) die("timerfd_settime");
    struct epoll_event events[256];
    int ready = epoll_wait(poll_, events, 256, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) readable(events[i].data.fd);
}

static Micros earlier(Micros a, Micros b) { return a < b ? a : b; }

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    poll_ = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    opened(timer, TIMER, 0);
    opened(STDIN_FILENO, LINES, 0);
    for (;;) {
        Micros time = now(), at = time + PATIENCE;
        if (running.count) at = running.all[0].at;
        if (is_going) {
            Micros last = requests[request_count - 1].at + PATIENCE;
            if (ended == request_count || time >= last) {
                gone();
                continue;
            }
            at = earlier(at, last);
            if (next_change < change_count) at = earlier(at, changes[next_change].at);
            if (next_request < request_count) at = earlier(at, requests[next_request].at);
        }
        if (at > time) wait_until(at);
        else if (running.count && running.all[0].at == at) service_ended();
        else if (next_change < change_count && changes[next_change].at == at) change(&changes[next_change++]);
        else ask(next_request++);
    }
}
