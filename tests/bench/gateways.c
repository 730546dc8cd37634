/* Gateways that do one request after the other: a command that begins it, and one that ends it.
 *
 *   gateways ADDRESS CONNECTIONS PIPELINE REQUESTS SECONDS , BEGIN … , END … [, END …]
 *
 * ADDRESS is a port of this machine or the path of a Unix socket. Each connection has PIPELINE requests open. It sends
 * one piece: the ends of each of them, and after these the beginning of another one. Then it waits for all replies, and so
 * on, until REQUESTS are done (rounded up to whole pieces) or the SECONDS are over. With a PIPELINE of 0 it has one request
 * open, and waits for the reply to each command. Words that the commands may have:
 *
 *   %1 %2 … the first, the second … value in the reply to BEGIN, however deep
 *   %n      the number of the request, of twelve digits
 *   %t %u   the time, in milliseconds and in microseconds
 *
 * An error, and a nil from BEGIN, end it. It prints how many requests there were, in how many seconds, and the median
 * and the 99th percentile of the microseconds from the piece that begins a request to the replies to that which ends it.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { VALUES = 64, ENDS = 32, LONGEST = 1024, INPUT = 1 << 20, MOST = 10000 };

typedef struct {
    size_t length;
    char bytes[LONGEST];
} Value;

typedef struct {
    unsigned long long number;
    Value values[VALUES];
} Request;

typedef struct {
    int socket, received;
    int ends, finishes, begins; /* The ENDs of each request in the piece, whether one is its last, and whether it begins others. */
    int left;                   /* The ENDs that come in later pieces. */
    double start, begun;        /* Of this piece, and of that which began the requests that it ends. */
    size_t filled;
    char *input;
    Request *requests;
} Connection;

typedef struct {
    size_t length, room;
    char *bytes;
} Output;

static unsigned long long last_number;
static Request ended; /* Takes the values in replies to ENDs. */

static void die(const char *why, const char *more, size_t length) {
    fprintf(stderr, "gateways: %s %.*s\n", why, (int)length, more);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void put(Output *out, const char *bytes, size_t length) {
    if (out->length + length > out->room) {
        out->room = 2 * (out->length + length);
        if (!(out->bytes = realloc(out->bytes, out->room))) die("no memory", "", 0);
    }
    memcpy(out->bytes + out->length, bytes, length);
    out->length += length;
}

static void put_bulk(Output *out, const char *bytes, size_t length) {
    char head[32];
    put(out, head, sprintf(head, "$%zu\r\n", length));
    put(out, bytes, length);
    put(out, "\r\n", 2);
}

static void put_command(Output *out, char **words, const Request *request) {
    char text[32];
    int count = 0;
    while (words[count]) count++;
    put(out, text, sprintf(text, "*%d\r\n", count));
    for (; *words; words++) {
        char kind = **words == '%' ? (*words)[1] : 0;
        int value_of = kind ? atoi(*words + 1) : 0;
        if (value_of > 0 && value_of <= VALUES) {
            const Value *value = &request->values[value_of - 1];
            put_bulk(out, value->bytes, value->length);
        } else if (kind == 'n') {
            put_bulk(out, text, sprintf(text, "%012llu", request->number));
        } else if (kind == 't' || kind == 'u') {
            put_bulk(out, text, sprintf(text, "%.0f", seconds(CLOCK_REALTIME) * (kind == 't' ? 1e3 : 1e6)));
        } else {
            put_bulk(out, *words, strlen(*words));
        }
    }
}

/* The end of the reply that begins at `at`, or NULL where it is not whole. Keeps its first values, *found so far. */
static char *read_reply(char *at, char *end, Request *request, int *found) {
    char *line = memchr(at, '\n', end - at);
    if (!line) return NULL;
    char kind = *at, *first = at + 1, *after = line + 1;
    size_t length = line - 1 - first;
    long number = atol(first);
    if (kind == '-') die("the server answers", first, length);
    if (kind == '*') {
        for (long i = 0; i < number && after; i++) after = read_reply(after, end, request, found);
        return after;
    }
    if (kind == '$') {
        if (number < 0) {
            (*found)++;
            return after;
        }
        first = after, length = number, after += number + 2;
        if (after > end) return NULL;
    }
    if (*found < VALUES) {
        if (length > LONGEST) die("a value is too long:", first, length);
        Value *value = &request->values[*found];
        value->length = length;
        memcpy(value->bytes, first, length);
    }
    (*found)++;
    return after;
}

static int connected(const char *address) {
    int on = 1, socket_;
    if (strchr(address, '/')) {
        struct sockaddr_un path = {.sun_family = AF_UNIX};
        if (strlen(address) >= sizeof path.sun_path) die("too long:", address, strlen(address));
        strcpy(path.sun_path, address);
        socket_ = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(socket_, (void *)&path, sizeof path)) die("nobody listens at", address, strlen(address));
    } else {
        struct sockaddr_in port = {.sin_family = AF_INET, .sin_port = htons(atoi(address))};
        port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socket_ = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(socket_, (void *)&port, sizeof port)) die("nobody listens at", address, strlen(address));
        setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return socket_;
}

typedef struct {
    char **begin, **ends[ENDS];
    int count, pipeline, is_one_by_one;
} Commands;

/* Sends the next piece, which may begin requests if it is wanted; whether there was one to send. */
static int send_piece(Connection *connection, const Commands *commands, int is_wanted, Output *out) {
    int first = commands->count - connection->left;
    connection->ends = commands->is_one_by_one && connection->left ? 1 : connection->left;
    connection->left -= connection->ends;
    connection->finishes = connection->ends && !connection->left;
    connection->begins = is_wanted && !connection->left && !(commands->is_one_by_one && connection->ends);
    if (connection->begins) connection->left = commands->count;
    connection->received = 0;
    connection->start = seconds(CLOCK_MONOTONIC);
    out->length = 0;
    for (int i = 0; i < commands->pipeline; i++) {
        Request *request = &connection->requests[i];
        for (int k = 0; k < connection->ends; k++) put_command(out, commands->ends[first + k], request);
        if (!connection->begins) continue;
        request->number = ++last_number;
        request->values[0].length = 0;
        put_command(out, commands->begin, request);
    }
    for (size_t sent = 0; sent < out->length;) {
        ssize_t n = write(connection->socket, out->bytes + sent, out->length - sent);
        if (n <= 0) die("the connection is closed", "", 0);
        sent += n;
    }
    return connection->ends || connection->begins;
}

/* Reads what is there; whether all replies to the piece are. */
static int receive(Connection *connection, int pipeline) {
    ssize_t n = read(connection->socket, connection->input + connection->filled, INPUT - connection->filled);
    if (n <= 0) die("the connection is closed, or a reply is too long", "", 0);
    connection->filled += n;
    char *at = connection->input, *end = at + connection->filled;
    int each = connection->ends + connection->begins;
    while (at < end) {
        Request *begun = &connection->requests[connection->received / each];
        int found = 0, is_end = connection->received % each < connection->ends;
        char *after = read_reply(at, end, is_end ? &ended : begun, &found);
        if (!after) break;
        if (!is_end && !begun->values[0].length) die("a request was refused", "", 0);
        at = after, connection->received++;
    }
    connection->filled = end - at;
    memmove(connection->input, at, connection->filled);
    return connection->received == each * pipeline;
}

static int ascending(const void *a, const void *b) {
    return (*(float *)a > *(float *)b) - (*(float *)a < *(float *)b);
}

int main(int count, char **words) {
    if (count < 9) die("too few words", "", 0);
    int connections = atoi(words[2]), pipeline = atoi(words[3]), open = 0;
    long long wanted = atoll(words[4]), begun = 0, done = 0;
    double most = atof(words[5]);
    if (connections < 1 || connections > MOST || pipeline < 0) die("no such number of connections, or pipeline", "", 0);
    if (strcmp(words[6], ",")) die("a comma is missing", "", 0);
    Commands commands = {.begin = words + 7, .pipeline = pipeline + !pipeline, .is_one_by_one = !pipeline};
    for (char **word = words + 7; *word; word++) {
        if (strcmp(*word, ",")) continue;
        if (commands.count == ENDS) die("too many ENDs", "", 0);
        *word = NULL;
        commands.ends[commands.count++] = word + 1;
    }
    if (!commands.count) die("a comma is missing", "", 0);
    pipeline = commands.pipeline;

    int poll = epoll_create1(0);
    Connection *all = calloc(connections, sizeof *all);
    Output out = {0};
    size_t room = 1 << 16;
    float *took = malloc(room * sizeof *took);
    last_number = (unsigned long long)(seconds(CLOCK_REALTIME) * 1e5) % 1000000000000;
    for (int i = 0; i < connections; i++) {
        all[i].socket = connected(words[1]);
        all[i].input = malloc(INPUT);
        all[i].requests = calloc(pipeline, sizeof(Request));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, all[i].socket, &event);
    }
    double start = seconds(CLOCK_MONOTONIC), now = start;
    for (int i = 0; i < connections && (i == 0 || begun < wanted); i++) {
        send_piece(&all[i], &commands, 1, &out);
        begun += pipeline, open++;
    }
    while (open) {
        struct epoll_event events[64];
        int ready = epoll_wait(poll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            Connection *connection = events[i].data.ptr;
            if (!receive(connection, pipeline)) continue;
            now = seconds(CLOCK_MONOTONIC);
            if (connection->finishes) {
                if ((size_t)(done / pipeline) == room && !(took = realloc(took, (room *= 2) * sizeof *took)))
                    die("no memory", "", 0);
                took[done / pipeline] = (now - connection->begun) * 1e6;
                done += pipeline;
            }
            if (connection->begins) connection->begun = connection->start;
            int is_wanted = begun < wanted && now - start < most;
            if (!send_piece(connection, &commands, is_wanted, &out)) open--;
            if (connection->begins) begun += pipeline;
        }
    }
    size_t pieces = done / pipeline;
    qsort(took, pieces, sizeof *took, ascending);
    printf("%lld %.9f %.3f %.3f\n", done, now - start, took[pieces / 2], took[pieces * 99 / 100]);
    return 0;
}
