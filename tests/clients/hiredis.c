// Names of any bytes there and back, codes of errors, a map, nil. test_clients.py says what it must print.
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
    redisFree(c);
}
