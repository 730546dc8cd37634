-- A fixed rotation: KEYS[1] is a list with every backend as often as its weight says, in smooth order.
-- To change a weight is to build the list anew.
return redis.call('LMOVE', KEYS[1], KEYS[1], 'LEFT', 'RIGHT')
