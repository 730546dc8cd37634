//! How a command describes itself to the server, and through `COMMAND DOCS` to redis-cli and to clients.

use crate::lb::ALGORITHMS;

/// What the server is told of a command.
pub struct Spec {
    /// Its name, in upper case.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// In big O, with the meaning of the letters.
    pub complexity: &'static str,
    /// The release of redis-lb that had it first.
    pub since: &'static str,
    /// How many arguments it takes with its name; negative: at least so many.
    pub arity: i32,
    /// `write` or `readonly`, `fast`, `deny-oom`.
    pub flags: &'static str,
    /// What it does to its key, in the words of `COMMAND INFO`.
    pub key: &'static str,
    /// Its arguments, with the key.
    pub args: &'static [Arg],
}

impl Spec {
    /// Whether it takes so many arguments.
    pub fn takes(&self, argc: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        match self.arity > 0 {
            true => argc == arity,
            false => argc >= arity,
        }
    }

    /// The server's own ACL categories that fit it, which a server derives from the flags only for its own commands.
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

    /// Whether it only looks.
    pub const fn is_readonly(&self) -> bool {
        // `write` and `readonly` stand first among the flags.
        self.flags.as_bytes()[0] == b'r'
    }

    /// Whether it can replace a key by what a client made up.
    pub fn is_dangerous(&self) -> bool {
        self.name == "LB.LOAD"
    }
}

/// An argument of a command.
#[derive(Clone, Copy)]
pub struct Arg {
    /// What stands there.
    pub name: &'static str,
    /// Of which kind.
    pub kind: Kind,
    /// The keyword that stands before it, or that it is.
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
    /// A keyword alone.
    Token,
    /// One of these.
    OneOf(&'static [Arg]),
    /// These, one after the other.
    Block(&'static [Arg]),
}

impl Arg {
    /// The pool.
    pub const KEY: Arg = Arg::new("key", Kind::Key);
    /// A member of it.
    pub const BACKEND: Arg = Arg::new("backend", Kind::Text);
    /// Its weight.
    pub const WEIGHT: Arg = Arg::new("weight", Kind::Integer);
    /// A member with its weight.
    pub const PAIR: Arg = Arg::new("pair", Kind::Block(&[Arg::BACKEND, Arg::WEIGHT]));
    /// Any algorithm.
    pub const ALGORITHM: Arg = Arg::new(
        "algorithm",
        Kind::OneOf(&algorithms::<{ ALGORITHMS.len() }>(true)),
    );
    /// Any algorithm whose picks can be foreseen.
    pub const FORESEEABLE: Arg = Arg::new("algorithm", Kind::OneOf(&algorithms::<3>(false)));
    /// How many picks.
    pub const COUNT: Arg = Arg::new("count", Kind::Integer).token("COUNT").optional();
    /// None of them twice.
    pub const DISTINCT: Arg = Arg::token_alone("DISTINCT").optional();
    /// None of these.
    pub const EXCLUDE: Arg = Arg::new(
        "exclude",
        Kind::Block(&[
            Arg::new("numbackends", Kind::Integer).token("EXCLUDE"),
            Arg::BACKEND.multiple(),
        ]),
    )
    .optional();

    /// A lease with its holder.
    pub const LEASE: Arg = Arg::new(
        "lease",
        Kind::Block(&[Arg::MILLISECONDS.token("LEASE"), Arg::OWNER.optional()]),
    )
    .optional();
    /// What a lease is called.
    pub const LEASE_ID: Arg = Arg::new("lease", Kind::Text);
    /// Who holds leases.
    pub const OWNER: Arg = Arg::new("owner", Kind::Text).token("OWNER");
    /// A time or a span.
    pub const MILLISECONDS: Arg = Arg::new("milliseconds", Kind::Integer);

    /// An argument that must be there.
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

    /// With this keyword before it.
    pub const fn token(mut self, token: &'static str) -> Arg {
        self.token = Some(token);
        self
    }

    /// That can be left out.
    pub const fn optional(mut self) -> Arg {
        self.is_optional = true;
        self
    }

    /// That can be repeated.
    pub const fn multiple(mut self) -> Arg {
        self.is_multiple = true;
        self
    }
}

/// The words for the algorithms: all of them, or only those whose picks can be foreseen, which are N.
const fn algorithms<const N: usize>(also_by_chance: bool) -> [Arg; N] {
    let mut args = [Arg::token_alone(""); N];
    let (mut i, mut n) = (0, 0);
    while i < ALGORITHMS.len() {
        if also_by_chance || !ALGORITHMS[i].is_by_chance() {
            args[n] = Arg::token_alone(ALGORITHMS[i].name());
            n += 1;
        }
        i += 1;
    }
    assert!(n == N);
    args
}
