// Names of any bytes there and back, codes of errors, a map, nil, a pick that waits. See test_clients.py.
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

static redisContext *c;

static void show(redisReply *reply) {
    if (reply && reply->type == REDIS_REPLY_ERROR) printf("%.*s\n", (int)strcspn(reply->str, " "), reply->str);
    if (reply && reply->type == REDIS_REPLY_NIL) puts("nil");
    if (reply && reply->type == REDIS_REPLY_ARRAY) puts("list");
    if (reply && reply->type == REDIS_REPLY_MAP) puts("map");
    if (!reply) puts(c->errstr);
    freeReplyObject(reply);
}

int main(void) {
    c = redisConnect("127.0.0.1", 6379);
    if (!c || c->err) return 1;
    freeReplyObject(redisCommand(c, "HELLO 3"));
    freeReplyObject(redisCommand(c, "DEL odd busy text"));
    show(redisCommand(c, "LB.ADD odd %s 1 %b 1 %s 1", "two words", "\0\xff\r\n", (size_t)4, "\"\\"));
    redisReply *names = redisCommand(c, "LB.PICK odd COUNT 3");
    for (size_t i = 0; names && i < names->elements; i++)
        show(redisCommand(c, "LB.WEIGHT odd %b 7", names->element[i]->str, names->element[i]->len));
    freeReplyObject(names);

    show(redisCommand(c, "SET text x"));
    show(redisCommand(c, "LB.WEIGHT odd x 1"));
    show(redisCommand(c, "LB.PICK text"));
    show(redisCommand(c, "LB.PICK odd COUNT 0"));
    show(redisCommand(c, "LB.STATS odd"));
    show(redisCommand(c, "LB.PICK none"));
    show(redisCommand(c, "LB.STATS odd x"));

    // Waiting: a connection of its own, with a timeout above BLOCK.
    struct timeval ten = {10, 0};
    redisContext *waiting = redisConnect("127.0.0.1", 6379);
    if (!waiting || waiting->err || redisSetTimeout(waiting, ten) != REDIS_OK) return 1;
    show(redisCommand(c, "LB.ADD busy one 1"));
    show(redisCommand(c, "LB.LIMIT busy MAX 1"));
    redisReply *lease = redisCommand(c, "LB.PICK busy LEASE 60000"), *picked = NULL;
    redisAppendCommand(waiting, "LB.PICK busy LEASE 60000 BLOCK 5000");
    for (int sent = 0; !sent;)
        if (redisBufferWrite(waiting, &sent) != REDIS_OK) return 1;
    show(redisCommand(c, "LB.DONE busy %s", lease->element[1]->str));
    freeReplyObject(lease);
    if (redisGetReply(waiting, (void **)&picked) != REDIS_OK) return 1;
    puts(picked->element[0]->str);
    freeReplyObject(picked);
    redisFree(waiting);
    redisFree(c);
}
