/* The floor of the relay's benchmarks: what libzmq, epoll and the kernel cost by themselves.
 *
 * It takes the relay's messages at a ROUTER and writes the bytes that subscribers get, and does
 * nothing else. A channel is one buffer of WebSocket frames, which is its history too, and a
 * subscriber a place in it. Whatever libzmq holds is taken before anything is written, so messages
 * that come together leave in one write.
 *
 * It has no limits, forgets nothing, and knows only what the loads of this directory send: the key
 * of RFC 6455's example, short frames, texts without anything to escape.
 *
 * Usage: relay_floor WEBSOCKET_PORT ZEROMQ_PORT, both on 127.0.0.1
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

enum { BUCKETS = 1 << 15, EVENTS = 1024, INPUT = 512, TEXT = 4096 };
enum { OPCODE_TEXT = 1, OPCODE_CLOSE = 8 };

static const char UPGRADED[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char CLOSE_1000[] = "\x88\x02\x03\xe8";
static const char *const NAMES[] = {"command", "task_id", "task_state"};
static const int FIELDS = sizeof NAMES / sizeof *NAMES;

struct client {
    struct client *next, **link; /* among its channel's clients */
    struct channel *channel;
    size_t written; /* of the channel's frames */
    int socket;
    bool upgraded;
    size_t held; /* bytes of input that are not a whole request or frame yet */
    unsigned char input[INPUT];
};

struct channel {
    struct channel *next;         /* in its bucket */
    struct channel *next_changed; /* among those with something to write */
    bool changed;
    struct client *clients;
    char *frames;
    size_t size, room;
    size_t name_size;
    char name[];
};

static struct channel *buckets[BUCKETS], *changed;

static void *need(void *result, const char *what) {
    if (!result) {
        perror(what);
        exit(1);
    }
    return result;
}

static int need_number(int result, const char *what) {
    if (result < 0) {
        perror(what);
        exit(1);
    }
    return result;
}

static _Noreturn void fail(const char *why) {
    fprintf(stderr, "relay_floor: %s\n", why);
    exit(1);
}

/* Channels. */

static struct channel *channel_of(const char *name, size_t size) {
    unsigned hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    struct channel **bucket = &buckets[hash % BUCKETS];
    for (struct channel *one = *bucket; one; one = one->next)
        if (one->name_size == size && !memcmp(one->name, name, size))
            return one;
    struct channel *one = need(calloc(1, sizeof *one + size), "calloc");
    memcpy(one->name, name, size);
    one->name_size = size;
    one->next = *bucket;
    return *bucket = one;
}

static void append(struct channel *channel, const char *data, size_t size) {
    if (channel->size + size > channel->room) {
        channel->room = 2 * channel->room + size;
        channel->frames = need(realloc(channel->frames, channel->room), "realloc");
    }
    memcpy(channel->frames + channel->size, data, size);
    channel->size += size;
}

static void publish(struct channel *channel, const char *text, size_t size, bool finished) {
    unsigned char head[4] = {0x80 | OPCODE_TEXT, size};
    size_t head_size = 2;
    if (size > 125) {
        head[1] = 126;
        head[2] = size >> 8;
        head[3] = size;
        head_size = 4;
    }
    append(channel, (char *)head, head_size);
    append(channel, text, size);
    if (finished)
        append(channel, CLOSE_1000, sizeof CLOSE_1000 - 1);
    if (!channel->changed) {
        channel->changed = true;
        channel->next_changed = changed;
        changed = channel;
    }
}

/* The publisher's side. */

static size_t add_field(char *text, size_t end, int number, const char *value, size_t size) {
    if (end + size + 32 > TEXT)
        fail("a message is too long");
    for (size_t i = 0; i < size; i++)
        if (value[i] < ' ' || value[i] > '~' || value[i] == '"' || value[i] == '\\')
            fail("a message has something to escape");
    end += sprintf(text + end, "%s\"%s\": \"", number ? ", " : "{", NAMES[number]);
    memcpy(text + end, value, size);
    text[end + size] = '"';
    return end + size + 1;
}

/* Takes one message: who sent it, its channel, its fields. Returns whether there was one. */
static bool take(void *router) {
    struct channel *channel = NULL;
    char text[TEXT];
    size_t end = 0;
    bool finished = false, more = true;
    for (int number = 0; more; number++) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, router, ZMQ_DONTWAIT) < 0) {
            if (errno == EAGAIN)
                return false;
            need_number(-1, "zmq_msg_recv");
        }
        const char *data = zmq_msg_data(&part);
        size_t size = zmq_msg_size(&part);
        int field = number - 2;
        if (number == 1)
            channel = channel_of(data, size);
        else if (field >= 0 && field < FIELDS) {
            end = add_field(text, end, field, data, size);
            finished |= !field && size == 8 && !memcmp(data, "FINISHED", 8);
        }
        more = zmq_msg_more(&part);
        zmq_msg_close(&part);
    }
    if (!end)
        fail("a message has no fields");
    text[end++] = '}';
    publish(channel, text, end, finished);
    return true;
}

/* The subscribers' side. Their sockets are edge-triggered, for reading and for writing. */

static void write_frames(struct client *client) {
    struct channel *channel = client->channel;
    while (channel && client->written < channel->size) {
        ssize_t sent = send(client->socket, channel->frames + client->written,
                            channel->size - client->written, MSG_NOSIGNAL);
        if (sent < 0)
            return; /* it is full, and epoll tells when it is not, or gone, and epoll tells too */
        client->written += sent;
    }
}

static void write_changed(void) {
    for (; changed; changed = changed->next_changed) {
        changed->changed = false;
        for (struct client *one = changed->clients; one; one = one->next)
            write_frames(one);
    }
}

static void leave(struct client *client) {
    if (client->channel) {
        *client->link = client->next;
        if (client->next)
            client->next->link = client->link;
    }
    close(client->socket);
    free(client);
}

static void subscribe(struct client *client, const char *name, size_t size) {
    if (client->channel)
        return;
    struct channel *channel = client->channel = channel_of(name, size);
    client->next = channel->clients;
    client->link = &channel->clients;
    if (client->next)
        client->next->link = &client->next;
    channel->clients = client;
    write_frames(client);
}

/* Handles what is whole of the input; returns how much of it that was, or -1 at the end. */
static ssize_t handle(struct client *client) {
    unsigned char *data = client->input;
    if (!client->upgraded) {
        const char *end = memmem(data, client->held, "\r\n\r\n", 4);
        if (!end)
            return 0;
        if (send(client->socket, UPGRADED, sizeof UPGRADED - 1, MSG_NOSIGNAL) < 0)
            return -1;
        client->upgraded = true;
        return end + 4 - (char *)data;
    }
    if (client->held < 6)
        return 0;
    size_t size = data[1] & 0x7f;
    if (size > 125)
        fail("a subscriber's frame is too long");
    if (client->held < 6 + size)
        return 0;
    for (size_t i = 0; i < size; i++)
        data[6 + i] ^= data[2 + i % 4];
    if ((data[0] & 0xf) == OPCODE_CLOSE)
        return -1;
    if ((data[0] & 0xf) == OPCODE_TEXT)
        subscribe(client, (char *)data + 6, size);
    return 6 + size;
}

static void client_event(struct client *client) {
    for (;;) {
        ssize_t got = recv(client->socket, client->input + client->held, INPUT - client->held, 0);
        if (got < 0 && errno == EAGAIN)
            break;
        if (got <= 0) {
            leave(client);
            return;
        }
        client->held += got;
        ssize_t used;
        while ((used = handle(client)) > 0)
            memmove(client->input, client->input + used, client->held -= used);
        if (used < 0) {
            leave(client);
            return;
        }
    }
    write_frames(client);
}

static void watch(int epoll, int descriptor, unsigned events, void *what) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    need_number(epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event), "epoll_ctl");
}

static void accept_all(int epoll, int listener) {
    int descriptor;
    while ((descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        need_number(setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)),
                    "TCP_NODELAY");
        struct client *client = need(calloc(1, sizeof *client), "calloc");
        client->socket = descriptor;
        watch(epoll, descriptor, EPOLLIN | EPOLLOUT | EPOLLET, client);
    }
}

static int listen_at(int port) {
    int listener = need_number(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    need_number(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)),
                "SO_REUSEADDR");
    need_number(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
    need_number(listen(listener, 1024), "listen");
    return listener;
}

static void *bind_router(const char *port) {
    void *context = need(zmq_ctx_new(), "zmq_ctx_new");
    void *router = need(zmq_socket(context, ZMQ_ROUTER), "zmq_socket");
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%s", port);
    need_number(zmq_setsockopt(router, ZMQ_RCVHWM, &(int){0}, sizeof(int)), "ZMQ_RCVHWM");
    need_number(zmq_bind(router, endpoint), "zmq_bind");
    return router;
}

int main(int count, char **arguments) {
    if (count != 3)
        fail("usage: relay_floor WEBSOCKET_PORT ZEROMQ_PORT");
    int epoll = need_number(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    int listener = listen_at(atoi(arguments[1]));
    void *router = bind_router(arguments[2]);
    int messages;
    size_t size = sizeof messages;
    need_number(zmq_getsockopt(router, ZMQ_FD, &messages, &size), "ZMQ_FD");
    watch(epoll, listener, EPOLLIN, &listener);
    watch(epoll, messages, EPOLLIN, &messages);
    while (take(router)) /* its descriptor tells only of what comes after all was taken */
        continue;
    for (;;) {
        struct epoll_event events[EVENTS];
        int found = epoll_wait(epoll, events, EVENTS, -1);
        if (found < 0 && errno != EINTR)
            need_number(found, "epoll_wait");
        for (int i = 0; i < found; i++) {
            void *what = events[i].data.ptr;
            if (what == &messages)
                while (take(router))
                    continue;
            else if (what == &listener)
                accept_all(epoll, listener);
            else
                client_event(what);
        }
        write_changed();
    }
}
