/*
 * The watchers of the fan-out benchmark: many EventSource connections in one
 * process, cheap enough to leave the server the bottleneck.
 *
 *   client HOST PORT PATH WATCHERS [HEADER...]
 *
 * Every connection must see the lines 1, 2, 3, ... each once and in order; what
 * is missing, doubled or late is counted. A line carries its own number and the
 * time of its birth (CLOCK_MONOTONIC, ns), see MARKER.
 *
 * Commands on stdin, one a line; each is answered with one JSON object a line:
 *   begin                   starts the measured window
 *   end                     ends it: deliveries, latency, own CPU time
 *   finish LAST TIMEOUT_MS  waits until every connection has line LAST: the verdict
 * End of file ends the process. When all are connected, it says so unasked.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef INFLATE /* for streams in gzip */
#include <zlib.h>
#endif

/* "fanout t=<19 digits> n=<10 digits>" anywhere in the data of an event. */
#define MARKER "fanout t="
#define MARKER_LEN 9
#define TIME_DIGITS 19
#define NUMBER_DIGITS 10
#define STAMP_LEN (MARKER_LEN + TIME_DIGITS + 3 + NUMBER_DIGITS)

#define CARRY_MAX 4096     /* longest line or response head that is understood */
#define READ_MAX (256 << 10)
#define CONNECTING_MAX 64  /* handshakes under way at once */
#define EVENTS_MAX 512

enum body { BODY_HEAD, BODY_PLAIN, CHUNK_SIZE, CHUNK_DATA, CHUNK_END };
enum kind { KIND_LOG, KIND_GAP, KIND_ERROR, KIND_END, KIND_OTHER, KINDS };

struct watcher {
    int fd;
    enum body body;
    enum kind kind;     /* of the event being read */
    bool has_data;      /* of the event being read */
    bool stamped;       /* the event being read has a line in it */
    bool closed;
    uint64_t chunk_left;
    uint64_t number;    /* of the line in the event being read */
    uint64_t born;
    uint64_t last;      /* number of the last line dispatched */
    uint32_t carried;   /* bytes of an unfinished line or head */
    char *carry;
#ifdef INFLATE
    z_stream *unpacking; /* of a stream in gzip */
#endif
};

/* Log-linear: 64 buckets to each power of two of microseconds, 1.6 % wide. */
#define SUB 64
#define BUCKETS (SUB * 40)

static struct watcher *watchers;
static int watcher_count, opened, connecting, connected, closed_count, epoll_fd;
static const char *request;
static size_t request_len;
static struct sockaddr_in server;
static char buffer[READ_MAX];
static uint64_t now_ns;

static uint64_t delivered, bytes, reads, comments, holes, doubled, events[KINDS];
static uint64_t buckets[BUCKETS], latency_max;
static uint64_t begin_delivered, begin_bytes, begin_reads, begin_wall, begin_cpu;
static bool measuring;
static uint64_t finish_last, finish_deadline;

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(2);
}

static void record(uint64_t latency_ns) {
    uint64_t us = latency_ns / 1000;
    unsigned index = (unsigned)us;
    if (us >= 2 * SUB) {
        unsigned shift = 63u - (unsigned)__builtin_clzll(us) - 6u;
        index = shift * SUB + (unsigned)(us >> shift);
    }
    buckets[index < BUCKETS ? index : BUCKETS - 1]++;
    if (latency_ns > latency_max) latency_max = latency_ns;
}

/* The upper edge, in microseconds, of the bucket that holds this share. */
static uint64_t quantile(double share) {
    uint64_t total = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) total += buckets[i];
    if (total == 0) return 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += buckets[i];
        if ((double)seen >= share * (double)total) {
            if (i < 2 * SUB) return (uint64_t)i + 1;
            unsigned shift = (unsigned)i / SUB - 1;
            return ((uint64_t)i % SUB + SUB + 1) << shift;
        }
    }
    return 0;
}

static bool digits(const char *text, int count, uint64_t *value) {
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        if (text[i] < '0' || text[i] > '9') return false;
        sum = sum * 10 + (uint64_t)(text[i] - '0');
    }
    *value = sum;
    return true;
}

static void read_data(struct watcher *w, const char *line, size_t len) {
    static size_t hint; /* the stamp mostly is where it was the last time */
    const char *stamp = NULL;
    if (hint + STAMP_LEN <= len && memcmp(line + hint, MARKER, MARKER_LEN) == 0)
        stamp = line + hint;
    else
        stamp = memmem(line, len, MARKER, MARKER_LEN);
    if (stamp == NULL || (size_t)(line + len - stamp) < STAMP_LEN) return;
    hint = (size_t)(stamp - line);
    if (w->stamped) die("one event carries two lines");
    w->stamped = digits(stamp + MARKER_LEN, TIME_DIGITS, &w->born) &&
                 digits(stamp + MARKER_LEN + TIME_DIGITS + 3, NUMBER_DIGITS, &w->number);
}

static void dispatch(struct watcher *w) {
    if (w->stamped) {
        delivered++;
        if (w->number <= w->last) {
            doubled++;
        } else {
            holes += w->number - w->last - 1;
            w->last = w->number;
        }
        if (measuring) record(now_ns > w->born ? now_ns - w->born : 0);
    } else {
        events[w->kind == KIND_LOG ? KIND_OTHER : w->kind]++;
    }
}

static bool is(const char *value, size_t len, const char *name) {
    return len == strlen(name) && memcmp(value, name, len) == 0;
}

/* One line of an event stream, without its line feed. */
static void read_line(struct watcher *w, const char *line, size_t len) {
    if (len && line[len - 1] == '\r') len--;
    if (len == 0) {
        if (w->has_data) dispatch(w); /* without data, there is no event (WHATWG HTML 9.2.6) */
        w->has_data = w->stamped = false;
        w->kind = KIND_LOG;
        return;
    }
    if (line[0] == ':') {
        comments++;
    } else if (len > 5 && memcmp(line, "data:", 5) == 0) {
        w->has_data = true;
        read_data(w, line, len);
    } else if (len > 6 && memcmp(line, "event:", 6) == 0) {
        const char *value = line + 6;
        size_t rest = len - 6;
        if (*value == ' ') value++, rest--;
        w->kind = is(value, rest, "log")     ? KIND_LOG
                  : is(value, rest, "gap")   ? KIND_GAP
                  : is(value, rest, "error") ? KIND_ERROR
                  : is(value, rest, "end")   ? KIND_END
                                             : KIND_OTHER;
    }
}

static void keep(struct watcher *w, const char *data, size_t len) {
    if (w->carried + len > CARRY_MAX) die("a line or head of over %d bytes", CARRY_MAX);
    if (w->carry == NULL && (w->carry = malloc(CARRY_MAX)) == NULL) die("no memory");
    memcpy(w->carry + w->carried, data, len);
    w->carried += (uint32_t)len;
}

static void read_events(struct watcher *w, const char *data, size_t len) {
    const char *end = data + len;
    while (data < end) {
        const char *feed = memchr(data, '\n', (size_t)(end - data));
        if (feed == NULL) {
            keep(w, data, (size_t)(end - data));
            return;
        }
        if (w->carried) {
            keep(w, data, (size_t)(feed - data));
            read_line(w, w->carry, w->carried);
            w->carried = 0;
        } else {
            read_line(w, data, (size_t)(feed - data));
        }
        data = feed + 1;
    }
}

#ifdef INFLATE
static void read_content(struct watcher *w, const char *data, size_t len) {
    static char unpacked[READ_MAX];
    z_stream *z = w->unpacking;
    if (z == NULL) {
        read_events(w, data, len);
        return;
    }
    z->next_in = (unsigned char *)data;
    z->avail_in = (unsigned)len;
    do {
        z->next_out = (unsigned char *)unpacked;
        z->avail_out = sizeof unpacked;
        int status = inflate(z, Z_SYNC_FLUSH);
        if (status != Z_OK && status != Z_BUF_ERROR && status != Z_STREAM_END)
            die("inflate: %d", status);
        read_events(w, unpacked, sizeof unpacked - z->avail_out);
    } while (z->avail_out == 0);
}

static void begin_content(struct watcher *w, const char *head) {
    if (strcasestr(head, "\r\ncontent-encoding: gzip") == NULL) return;
    if ((w->unpacking = calloc(1, sizeof *w->unpacking)) == NULL) die("no memory");
    if (inflateInit2(w->unpacking, 16 + MAX_WBITS) != Z_OK) die("inflateInit2 failed");
}
#else
#define read_content read_events
static void begin_content(struct watcher *w, const char *head) {
    (void)w;
    if (strcasestr(head, "\r\ncontent-encoding: gzip")) die("a stream in gzip");
}
#endif

static void read_chunked(struct watcher *w, const char *data, size_t len) {
    const char *end = data + len;
    while (data < end) {
        if (w->body == CHUNK_DATA) {
            size_t part = (size_t)(end - data);
            if (part > w->chunk_left) part = (size_t)w->chunk_left;
            read_content(w, data, part);
            data += part;
            w->chunk_left -= part;
            if (w->chunk_left == 0) w->body = CHUNK_END;
            continue;
        }
        char c = *data++;
        if (w->body == CHUNK_END) { /* CR LF behind the data */
            if (c == '\n') w->body = CHUNK_SIZE;
        } else if (c == '\n') {
            w->body = w->chunk_left ? CHUNK_DATA : CHUNK_END;
        } else if (c != '\r') {
            int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) - 'a' + 10;
            if (digit < 0 || digit > 15) die("bad chunk size");
            w->chunk_left = w->chunk_left * 16 + (uint64_t)digit;
        }
    }
}

static void read_body(struct watcher *w, const char *data, size_t len) {
    if (w->body == BODY_PLAIN)
        read_content(w, data, len);
    else
        read_chunked(w, data, len);
}

static void open_more(void);

static void read_head(struct watcher *w, const char *data, size_t len) {
    size_t before = w->carried, part = len;
    if (before + part > CARRY_MAX) part = CARRY_MAX - before;
    keep(w, data, part);
    char *stop = memmem(w->carry, w->carried, "\r\n\r\n", 4);
    if (stop == NULL) {
        if (w->carried == CARRY_MAX) die("a response head of over %d bytes", CARRY_MAX);
        return;
    }
    if (memcmp(w->carry, "HTTP/1.1 200", 12) != 0 && memcmp(w->carry, "HTTP/1.0 200", 12) != 0)
        die("refused: %.*s", (int)w->carried, w->carry);
    size_t head = (size_t)(stop - w->carry) + 4;
    *stop = '\0';
    w->body = strcasestr(w->carry, "\r\ntransfer-encoding: chunked") ? CHUNK_SIZE : BODY_PLAIN;
    begin_content(w, w->carry);
    w->carried = 0;
    free(w->carry);
    w->carry = NULL;
    connected++;
    connecting--;
    size_t used = head - before;
    if (used < len) read_body(w, data + used, len - used);
    open_more();
}

static void close_watcher(struct watcher *w) {
    if (w->body == BODY_HEAD) die("a connection was closed before its response");
    close(w->fd);
    w->closed = true;
    closed_count++;
}

static void on_socket(struct watcher *w, uint32_t ready) {
    if (ready & EPOLLOUT) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) die("connect: %s", strerror(error));
        if (send(w->fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len)
            die("send: %s", strerror(errno));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = w};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, w->fd, &event);
        return;
    }
    ssize_t got = recv(w->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        close_watcher(w);
        return;
    }
    now_ns = clock_ns(CLOCK_MONOTONIC);
    reads++;
    bytes += (uint64_t)got;
    if (w->body == BODY_HEAD)
        read_head(w, buffer, (size_t)got);
    else
        read_body(w, buffer, (size_t)got);
}

static void open_more(void) {
    while (opened < watcher_count && connecting < CONNECTING_MAX) {
        struct watcher *w = &watchers[opened++];
        connecting++;
        w->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (w->fd < 0) die("socket: %s", strerror(errno));
        int on = 1;
        setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(w->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
            die("connect: %s", strerror(errno));
        struct epoll_event event = {.events = EPOLLOUT, .data.ptr = w};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, w->fd, &event);
    }
}

static void begin_window(void) {
    memset(buckets, 0, sizeof buckets);
    latency_max = 0;
    begin_delivered = delivered;
    begin_bytes = bytes;
    begin_reads = reads;
    begin_wall = clock_ns(CLOCK_MONOTONIC);
    begin_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    measuring = true;
    puts("{\"event\": \"begin\"}");
}

static void end_window(void) {
    measuring = false;
    printf("{\"event\": \"end\", \"delivered\": %lu, \"bytes\": %lu, \"reads\": %lu, "
           "\"wall_s\": %.6f, \"cpu_s\": %.6f, \"p50_us\": %lu, \"p90_us\": %lu, "
           "\"p99_us\": %lu, \"max_us\": %lu}\n",
           delivered - begin_delivered, bytes - begin_bytes, reads - begin_reads,
           (double)(clock_ns(CLOCK_MONOTONIC) - begin_wall) / 1e9,
           (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - begin_cpu) / 1e9, quantile(0.5),
           quantile(0.9), quantile(0.99), latency_max / 1000);
}

/* The verdict is given when all are complete or the time is over. */
static void try_finish(void) {
    uint64_t missing = 0;
    for (int i = 0; i < watcher_count; i++)
        if (watchers[i].last < finish_last) missing += finish_last - watchers[i].last;
    if (missing && clock_ns(CLOCK_MONOTONIC) < finish_deadline) return;
    finish_deadline = 0;
    printf("{\"event\": \"finish\", \"delivered\": %lu, \"holes\": %lu, \"doubled\": %lu, "
           "\"missing_at_end\": %lu, \"closed\": %d, \"comments\": %lu, \"gap_events\": %lu, "
           "\"error_events\": %lu, \"end_events\": %lu, \"other_events\": %lu}\n",
           delivered, holes, doubled, missing, closed_count, comments, events[KIND_GAP],
           events[KIND_ERROR], events[KIND_END], events[KIND_OTHER]);
}

/* False at the end of file. */
static bool on_command(void) {
    static char text[256];
    static size_t have;
    ssize_t got = read(STDIN_FILENO, text + have, sizeof text - 1 - have);
    if (got <= 0) return false;
    have += (size_t)got;
    text[have] = '\0';
    char *feed;
    while ((feed = strchr(text, '\n')) != NULL) {
        *feed = '\0';
        unsigned long last, timeout_ms;
        if (strcmp(text, "begin") == 0) {
            begin_window();
        } else if (strcmp(text, "end") == 0) {
            end_window();
        } else if (sscanf(text, "finish %lu %lu", &last, &timeout_ms) == 2) {
            finish_last = last;
            finish_deadline = clock_ns(CLOCK_MONOTONIC) + timeout_ms * 1000000u;
        } else {
            die("unknown command: %s", text);
        }
        have -= (size_t)(feed + 1 - text);
        memmove(text, feed + 1, have + 1);
    }
    return true;
}

static void write_request(const char *path, int header_count, char **headers) {
    size_t size = strlen(path) + 256;
    for (int i = 0; i < header_count; i++) size += strlen(headers[i]) + 2;
    char *text = malloc(size);
    if (text == NULL) die("no memory");
    int len = snprintf(text, size, "GET %s HTTP/1.1\r\nHost: localhost\r\n"
                       "Accept: text/event-stream\r\nCache-Control: no-store\r\n", path);
    for (int i = 0; i < header_count; i++)
        len += snprintf(text + len, size - (size_t)len, "%s\r\n", headers[i]);
    len += snprintf(text + len, size - (size_t)len, "\r\n");
    request = text;
    request_len = (size_t)len;
}

int main(int argc, char **argv) {
    if (argc < 5) die("usage: client HOST PORT PATH WATCHERS [HEADER...]");
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) die("not an IPv4 address: %s", argv[1]);
    watcher_count = atoi(argv[4]);
    write_request(argv[3], argc - 5, argv + 5);
    watchers = calloc((size_t)watcher_count, sizeof *watchers);
    if (watchers == NULL) die("no memory");
    setvbuf(stdout, NULL, _IOLBF, 0);

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event)) die("stdin must be a pipe");
    uint64_t started = clock_ns(CLOCK_MONOTONIC);
    open_more();

    struct epoll_event ready[EVENTS_MAX];
    bool told = false;
    for (;;) {
        int count = epoll_wait(epoll_fd, ready, EVENTS_MAX, finish_deadline ? 5 : -1);
        if (count < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < count; i++) {
            if (ready[i].data.ptr == NULL) {
                if (!on_command()) return 0;
            } else {
                on_socket(ready[i].data.ptr, ready[i].events);
            }
        }
        if (!told && connected == watcher_count) {
            told = true;
            printf("{\"event\": \"connected\", \"watchers\": %d, \"seconds\": %.3f}\n", connected,
                   (double)(clock_ns(CLOCK_MONOTONIC) - started) / 1e9);
        }
        if (finish_deadline) try_finish();
    }
}
