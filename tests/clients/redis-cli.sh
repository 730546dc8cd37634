#!/usr/bin/env bash
# Names of any bytes there and back, codes of errors, a map, nil. test_clients.py says what it must print.
set -euo pipefail
lb() { redis-cli -3 -p 6379 "$@"; }

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
