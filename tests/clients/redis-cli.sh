#!/usr/bin/env bash
# Names of any bytes there and back, codes of errors, a map, nil, a pick that waits. See test_clients.py.
set -euo pipefail
lb() { redis-cli -3 -p 6379 "$@"; }

lb DEL odd busy text >/dev/null
# What it reads from its input may be quoted as it quotes names itself, without --raw.
lb >/dev/null <<'END'
LB.ADD odd "two words" 1 "\x00\xff\r\n" 1 "\"\\" 1
SET text x
END
echo 'LB.PICK odd COUNT 3' | lb --no-raw | sed -E 's/^[0-9]+\) (.*)$/LB.WEIGHT odd \1 7/' | lb >/dev/null

while read -ra words; do
  if ! error=$(lb -e "${words[@]}" 2>&1 >/dev/null); then echo "${error%% *}"; fi
done <<'END'
LB.WEIGHT odd x 1
LB.PICK text
LB.PICK odd COUNT 0
END
if [[ $(lb --no-raw LB.STATS odd) == '1# '* ]]; then echo map; else echo list; fi
lb --no-raw LB.PICK none | tr -d '()'
lb --no-raw LB.STATS odd x | tr -d '()'

# Waiting: each call has a connection of its own, and waits as long as it takes.
lb LB.ADD busy one 1 >/dev/null
lb LB.LIMIT busy MAX 1 >/dev/null
lease=$(lb LB.PICK busy LEASE 60000 | tail -n 1)
(sleep 0.1 && lb LB.DONE busy "$lease" >/dev/null) &
lb LB.PICK busy LEASE 60000 BLOCK 5000 | head -n 1
wait
