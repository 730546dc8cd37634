//! The request of a client that waits.

use std::os::raw::c_int;

use super::kinds::{Kind, Names};
use crate::lb::{Algorithm, LeaseTerms, Millis, Request, Sticky};

/// A key: its database and its name.
pub type At = (c_int, Box<[u8]>);

/// A pick that a client waits for: a [`Request`] that owns its names.
#[derive(Clone, Debug)]
pub struct Asked {
    algorithm: Option<Algorithm>,
    item: Option<Box<[u8]>>,
    count: usize,
    distinct: bool,
    exclude: Names,
    lease: Option<(Millis, Option<Box<[u8]>>)>,
    costs: Box<[(Box<[u8]>, u64)]>,
    sticky: Option<Sticky>,
}

impl Asked {
    pub fn of(request: &Request) -> Asked {
        let terms = request.terms;
        Asked {
            algorithm: request.algorithm,
            item: request.item.map(Into::into),
            count: request.count,
            distinct: request.distinct,
            exclude: request.exclude.iter().map(|name| (*name).into()).collect(),
            lease: terms.map(|terms| (terms.span, terms.owner.map(Into::into))),
            costs: (request.costs.iter())
                .map(|(name, amount)| ((*name).into(), *amount))
                .collect(),
            sticky: request.sticky,
        }
    }

    pub fn request(&self) -> Request<'_> {
        Request {
            algorithm: self.algorithm,
            item: self.item.as_deref(),
            count: self.count,
            distinct: self.distinct,
            exclude: self.exclude.iter().map(|name| &**name).collect(),
            terms: self.lease.as_ref().map(|(span, owner)| LeaseTerms {
                span: *span,
                owner: owner.as_deref(),
            }),
            costs: (self.costs.iter())
                .map(|(name, amount)| (&**name, *amount))
                .collect(),
            sticky: self.sticky,
        }
    }

    pub fn has_costs(&self) -> bool {
        !self.costs.is_empty()
    }

    pub fn kind(&self) -> Kind {
        let sorted = |mut names: Vec<Box<[u8]>>| {
            names.sort_unstable();
            names.dedup();
            names.into()
        };
        Kind {
            excluded: sorted(self.exclude.to_vec()),
            costs: sorted(self.costs.iter().map(|(name, _)| name.clone()).collect()),
            is_leasing: self.lease.is_some() || self.sticky.is_some(),
            sticky: self.sticky,
        }
    }
}
