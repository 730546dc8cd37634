/* Commands that do what the API asks of any module and nothing else: below them no module can go.
 *
 *   FLOOR.REPLY key         answers 22 bytes, as long as the names of the backends
 *   FLOOR.WRITE key [any]   the same, as a write: opens the key, looks at its type and value, goes into the stream
 *   FLOOR.TOUCH key         the same, and reads a byte of the value
 *   FLOOR.HUNDRED key any…  as FLOOR.WRITE with a hundred of those answers
 *   FLOOR.LEASE key any…    the same with a pair of answers: 22 bytes, and 27 as of a lease's id
 *   FLOOR.DONE key any…     the same with the answer 1
 */
#include <stddef.h>

typedef struct Context Context;
typedef struct Key Key;
typedef struct String String;
typedef int Command(Context *, String **, int);

static int (*create_command)(Context *, const char *, Command *, const char *, int, int, int);
static int (*reply_with_array)(Context *, long);
static int (*reply_with_integer)(Context *, long long);
static int (*reply_with_string)(Context *, const char *, size_t);
static Key *(*open_key)(Context *, String *, int);
static void (*close_key)(Key *);
static void *(*type_of)(Key *);
static void *(*value_of)(Key *);
static int (*replicate_verbatim)(Context *);
static int (*signal_modified_key)(Context *, String *);

static int reply(Context *context, String **arguments, int count) {
    (void)arguments, (void)count;
    return reply_with_string(context, "web-000000000-00000:80", 22);
}

static void *volatile seen;

static int write_and(Command *answer, Context *context, String **arguments) {
    enum { READ = 1, WRITE = 2 };
    Key *key = open_key(context, arguments[1], READ | WRITE);
    seen = type_of(key);
    seen = value_of(key);
    answer(context, arguments, 2);
    replicate_verbatim(context);
    signal_modified_key(context, arguments[1]);
    close_key(key);
    return 0;
}

static volatile char byte;

static int touched(Context *context, String **arguments, int count) {
    byte = *(volatile char *)seen;
    return reply(context, arguments, count);
}

static int replies(Context *context, String **arguments, int count) {
    reply_with_array(context, 100);
    for (int i = 0; i < 100; i++) reply(context, arguments, count);
    return 0;
}

static int pair(Context *context, String **arguments, int count) {
    reply_with_array(context, 2);
    reply(context, arguments, count);
    return reply_with_string(context, "10223372036854775807-123456", 27);
}

static int yes(Context *context, String **arguments, int count) {
    (void)arguments, (void)count;
    return reply_with_integer(context, 1);
}

static int one(Context *context, String **arguments, int count) {
    (void)count;
    return write_and(reply, context, arguments);
}

static int touch(Context *context, String **arguments, int count) {
    (void)count;
    return write_and(touched, context, arguments);
}

static int hundred(Context *context, String **arguments, int count) {
    (void)count;
    return write_and(replies, context, arguments);
}

static int lease(Context *context, String **arguments, int count) {
    (void)count;
    return write_and(pair, context, arguments);
}

static int done(Context *context, String **arguments, int count) {
    (void)count;
    return write_and(yes, context, arguments);
}

int RedisModule_OnLoad(Context *context) {
    int (*get)(const char *, void *) = *(void **)context;
    int (*set_attributes)(Context *, const char *, int, int);
#define GET(name, into) get("RedisModule_" name, &into)
    GET("SetModuleAttribs", set_attributes), GET("CreateCommand", create_command);
    GET("ReplyWithArray", reply_with_array), GET("ReplyWithStringBuffer", reply_with_string);
    GET("ReplyWithLongLong", reply_with_integer);
    GET("OpenKey", open_key), GET("CloseKey", close_key);
    GET("ModuleTypeGetType", type_of), GET("ModuleTypeGetValue", value_of);
    GET("ReplicateVerbatim", replicate_verbatim), GET("SignalModifiedKey", signal_modified_key);
    set_attributes(context, "floor", 1, 1);
    return create_command(context, "floor.reply", reply, "readonly fast", 1, 1, 1) |
           create_command(context, "floor.write", one, "write fast", 1, 1, 1) |
           create_command(context, "floor.touch", touch, "write fast", 1, 1, 1) |
           create_command(context, "floor.hundred", hundred, "write fast", 1, 1, 1) |
           create_command(context, "floor.lease", lease, "write fast", 1, 1, 1) |
           create_command(context, "floor.done", done, "write fast", 1, 1, 1);
}
