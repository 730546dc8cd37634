-- Gives ARGV[1], a backend of what edf.lua picks from, the weight ARGV[2], from its next turn on. KEYS[2] is a hash:
-- name -> step.
local old, new = redis.call('HGET', KEYS[2], ARGV[1]), string.format('%.12f', 1 / ARGV[2])
local deadline = redis.call('ZSCORE', KEYS[1], old .. ARGV[1])
redis.call('ZREM', KEYS[1], old .. ARGV[1])
redis.call('ZADD', KEYS[1], deadline, new .. ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], new)
