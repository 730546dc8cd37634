//! The description of a command for the server. `COMMAND DOCS` shows it to redis-cli and to clients.

use crate::lb::{ALGORITHMS, Algorithm, FORESEEABLE, POLICIES};

/// The description of a command.
pub struct Spec {
    /// Its name, in upper case.
    pub name: &'static str,
    /// Its effect, in a sentence or two.
    pub summary: &'static str,
    /// Its complexity in big O, with the meaning of the letters.
    pub complexity: &'static str,
    /// The release of redis-lb that had it first.
    pub since: &'static str,
    /// The number of arguments, including its name. A negative number -n means at least n.
    pub arity: i32,
    /// `write` or `readonly`, `fast`, `deny-oom`.
    pub flags: &'static str,
    /// The flags of its key, in the words of `COMMAND INFO`.
    pub key: &'static str,
    /// Its arguments, including the key.
    pub args: &'static [Arg],
}

impl Spec {
    /// Whether it takes `argc` arguments, including its name.
    pub fn takes(&self, argc: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        match self.arity > 0 {
            true => argc == arity,
            false => argc >= arity,
        }
    }

    /// The server's own ACL categories that fit it. A server derives them from the flags, but only for its own commands.
    pub fn categories(&self) -> Vec<&'static str> {
        let has = |flag| self.flags.split(' ').any(|f| f == flag);
        let mut categories = vec![
            if has("write") { "write" } else { "read" },
            if has("fast") { "fast" } else { "slow" },
        ];
        if self.is_dangerous() {
            categories.push("dangerous");
        }
        categories
    }

    /// Whether it only reads.
    pub const fn is_readonly(&self) -> bool {
        // `write` or `readonly` is the first flag.
        self.flags.as_bytes()[0] == b'r'
    }

    /// Whether it can replace a key by a payload that a client made up.
    pub fn is_dangerous(&self) -> bool {
        self.name == "LB.LOAD"
    }
}

/// An argument of a command.
#[derive(Clone, Copy)]
pub struct Arg {
    /// Its name in the documentation.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The keyword before it, or the keyword that it is.
    pub token: Option<&'static str>,
    /// Whether it can be left out.
    pub is_optional: bool,
    /// Whether it can be repeated.
    pub is_multiple: bool,
}

/// A kind of argument.
#[derive(Clone, Copy)]
pub enum Kind {
    /// The key.
    Key,
    /// Any bytes.
    Text,
    /// A whole number.
    Integer,
    /// A decimal number.
    Double,
    /// A keyword alone.
    Token,
    /// One of these arguments.
    OneOf(&'static [Arg]),
    /// These arguments, one after the other.
    Block(&'static [Arg]),
}

impl Arg {
    /// The pool.
    pub const KEY: Arg = Arg::new("key", Kind::Key);
    /// A backend.
    pub const BACKEND: Arg = Arg::new("backend", Kind::Text);
    /// The weight of a backend.
    pub const WEIGHT: Arg = Arg::new("weight", Kind::Integer);
    /// A backend with its weight.
    pub const PAIR: Arg = Arg::new("pair", Kind::Block(&[Arg::BACKEND, Arg::WEIGHT]));
    /// Any algorithm.
    pub const ALGORITHM: Arg = Arg::new("algorithm", Kind::OneOf(&words(ALGORITHMS)));
    /// Any algorithm that can be a policy.
    pub const POLICY: Arg = Arg::new("algorithm", Kind::OneOf(&words(POLICIES)));
    /// Any algorithm whose picks can be foreseen.
    pub const FORESEEABLE: Arg = Arg::new("algorithm", Kind::OneOf(&words(FORESEEABLE)));
    /// The algorithm that goes by an item, with the item.
    const HASH: Arg = Arg::new(
        "hash",
        Kind::Block(&[Arg::new("item", Kind::Text).token(Algorithm::HASH.name())]),
    );
    /// The number of picks.
    pub const COUNT: Arg = Arg::new("count", Kind::Integer).token("COUNT").optional();
    /// No backend twice.
    pub const DISTINCT: Arg = Arg::token_alone("DISTINCT").optional();
    /// None of these backends.
    pub const EXCLUDE: Arg = Arg::new(
        "exclude",
        Kind::Block(&[
            Arg::new("numbackends", Kind::Integer).token("EXCLUDE"),
            Arg::BACKEND.multiple(),
        ]),
    )
    .optional();

    /// The name of a session.
    pub const SESSION: Arg = Arg::new("session", Kind::Text);

    /// A lease, with its owner.
    pub const LEASE: Arg = Arg::new(
        "lease",
        Kind::Block(&[Arg::MILLISECONDS.token("LEASE"), Arg::OWNER.optional()]),
    )
    .optional();
    /// Costs with their amounts.
    pub const COSTS: Arg = Arg::new(
        "costs",
        Kind::Block(&[
            Arg::new("numcosts", Kind::Integer).token("COSTS"),
            Arg::COST.multiple(),
        ]),
    );
    /// A cost with an amount.
    pub const COST: Arg = Arg::new(
        "cost",
        Kind::Block(&[
            Arg::new("name", Kind::Text),
            Arg::new("amount", Kind::Integer),
        ]),
    );
    /// A wait, with its place among the others.
    pub const BLOCK: Arg = Arg::new(
        "block",
        Kind::Block(&[
            Arg::MILLISECONDS.token("BLOCK"),
            Arg::new("prio", Kind::Integer).token("PRIO").optional(),
            Arg::new("name", Kind::Text).token("FOR").optional(),
        ]),
    )
    .optional();
    /// The id of a lease.
    pub const LEASE_ID: Arg = Arg::new("lease", Kind::Text);
    /// The owner of leases.
    pub const OWNER: Arg = Arg::new("owner", Kind::Text).token("OWNER");
    /// A point in time, or a span.
    pub const MILLISECONDS: Arg = Arg::new("milliseconds", Kind::Integer);

    /// A required argument, without a keyword.
    pub const fn new(name: &'static str, kind: Kind) -> Arg {
        Arg {
            name,
            kind,
            token: None,
            is_optional: false,
            is_multiple: false,
        }
    }

    /// A keyword without a value.
    pub const fn token_alone(token: &'static str) -> Arg {
        Arg::new(token, Kind::Token).token(token)
    }

    /// The same with this keyword before it.
    pub const fn token(mut self, token: &'static str) -> Arg {
        self.token = Some(token);
        self
    }

    /// The same, but it can be left out.
    pub const fn optional(mut self) -> Arg {
        self.is_optional = true;
        self
    }

    /// The same, but it can be repeated.
    pub const fn multiple(mut self) -> Arg {
        self.is_multiple = true;
        self
    }
}

/// A keyword for each of these algorithms, with the item behind it where it goes by one.
const fn words<const N: usize>(algorithms: [Algorithm; N]) -> [Arg; N] {
    let mut args = [Arg::token_alone(""); N];
    let mut i = 0;
    while i < N {
        args[i] = match algorithms[i].goes_by_item() {
            true => Arg::HASH,
            false => Arg::token_alone(algorithms[i].name()),
        };
        i += 1;
    }
    args
}
