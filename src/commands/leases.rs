//! LB.LEASES: lists open leases.

use super::arguments::{self, Options, is_keyword, name};
use crate::lb::COUNT_MAX;
use crate::server::{Arg, Call, Command, Effect, Error, Key, Spec};

/// LB.LEASES
pub struct Leases;

impl Command for Leases {
    const SPEC: Spec = Spec {
        name: "LB.LEASES",
        summary: "Lists open leases, the oldest first: id, backend, owner, age and remaining milliseconds.",
        complexity: "O(N + L log N), with N the number of backends that have leases and L the number of leases listed; O(L) with BACKEND or OWNER; with both, L is the number of all leases of the owner",
        since: "0.2.0",
        arity: -2,
        flags: "readonly",
        key: "RO access",
        args: &[
            Arg::KEY,
            Arg::BACKEND.token("BACKEND").optional(),
            Arg::OWNER.optional(),
            Arg::COUNT,
        ],
    };

    type Order<'a> = Filter<'a>;

    fn read(call: &Call) -> Result<Filter<'_>, Error> {
        let (mut backend, mut owner, mut count) = (None, None, None);
        let mut options = Options::of(call.args(2));
        while let Some(word) = options.keyword() {
            let is_repeated = if is_keyword(word, b"BACKEND") {
                let named = name(options.value("BACKEND")?)?;
                backend.replace(named).is_some()
            } else if is_keyword(word, b"OWNER") {
                let named = arguments::owner(options.value("OWNER")?)?;
                owner.replace(named).is_some()
            } else if is_keyword(word, b"COUNT") {
                let most = options.number("COUNT", 1..=COUNT_MAX as u64)?;
                count.replace(most).is_some()
            } else {
                let words = "BACKEND backend, OWNER name or COUNT n";
                return Err(Error::not_one_of("keyword", word, words));
            };
            if is_repeated {
                return Err(Error::repeated(word));
            }
        }
        Ok(Filter {
            backend,
            owner,
            most: count.map_or(usize::MAX, |count| count as usize),
        })
    }

    fn run(filter: Filter, key: &mut Key, call: &Call) -> Effect {
        let reply = call.reply();
        let Some(pool) = key.pool() else {
            reply.array(0);
            return Effect::None;
        };
        let leases = match filter.backend.map(|backend| pool.slot(backend)) {
            Some(None) => Vec::new(),
            slot => pool.list_leases(slot.flatten(), filter.owner, filter.most),
        };
        reply.array(leases.len());
        for lease in leases {
            reply.map(5);
            reply.bulk(b"lease");
            reply.bulk(lease.id.text().as_bytes());
            reply.bulk(b"backend");
            match lease.slot {
                Some(slot) => reply.bulk(pool.name(slot)),
                None => reply.nil(),
            }
            reply.bulk(b"owner");
            match lease.owner {
                Some(owner) => reply.bulk(owner),
                None => reply.nil(),
            }
            reply.bulk(b"age");
            reply.integer((pool.clock() - lease.granted) as usize);
            reply.bulk(b"remaining");
            reply.integer(lease.remaining(pool.clock()) as usize);
        }
        Effect::None
    }
}

/// The leases to list.
pub struct Filter<'a> {
    backend: Option<&'a [u8]>,
    owner: Option<&'a [u8]>,
    most: usize,
}
