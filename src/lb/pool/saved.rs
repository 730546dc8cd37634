//! A pool as bytes: the order of its parts' sections. Each part writes and reads its own.

use std::collections::BTreeSet;

use super::parts::Pool;
use crate::lb::account::{Account, LeasesHead, Whose};
use crate::lb::field::{Field, State};
use crate::lb::ground::bounds::{BACKENDS_MAX, COUNTER_MAX, NAME_MAX, Slot, TIERS_MAX};
use crate::lb::ground::chance::Chance;
use crate::lb::ground::kept::Kept;
use crate::lb::ground::saved::{Bytes, Malformed, Reader, Writer, checked};
use crate::lb::pick::{Algorithm, Credits, Turns};
use crate::lb::roster::Card;

/// The form that a pool is saved in. A pool is saved in the first one that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Of a pool that keeps no account of time, leases and limits.
    Plain = 1,
    /// And of one that does.
    Accounted = 2,
    /// The same, and then sections: of algorithms and parts that came later.
    Sectioned = 3,
}

/// The code of the section of all that is over and not cleared. Algorithms have lower codes.
const OVER: u8 = 128;
/// That of the health of the backends.
const HEALTH: u8 = 129;
/// That of their latencies.
const LATENCIES: u8 = 130;
/// That of the limits that hold for each backend.
const EACH: u8 = 131;
/// That of the costs, and of what leases took of them.
const COSTS: u8 = 132;
/// That of the sessions.
const SESSIONS: u8 = 133;
/// That of the settings of the queue.
const QUEUE: u8 = 134;
/// That of the setting of bounded load.
const BALANCE: u8 = 135;

impl Pool {
    /// The form that the pool is saved in.
    pub fn format(&self) -> Format {
        let is_accounted = self.account.as_ref().is_some_and(|a| !a.is_default())
            || self.turns().is_some_and(|turns| turns.made() > 0)
            || self.field.seats().iter().any(|seat| seat.tier() > 0);
        match self.save_sections().is_empty() {
            false => Format::Sectioned,
            true if is_accounted => Format::Accounted,
            true => Format::Plain,
        }
    }

    fn save_sections(&self) -> Vec<(u8, Vec<u8>)> {
        let slots: Vec<Slot> = self.roster.members().collect();
        let mut sections = self.owns.save_sections(&slots);
        if let Some(account) = &self.account {
            let mut add = |code, save: &dyn Fn(&mut Writer)| {
                let mut section = Writer::default();
                save(&mut section);
                if !section.is_empty() {
                    sections.push((code, section.into_bytes()));
                }
            };
            add(OVER, &|to| account.save_over(&self.roster.gaps(), to));
            add(HEALTH, &|to| account.save_health(&slots, to));
            add(LATENCIES, &|to| account.save_latencies(&slots, to));
            add(EACH, &|to| account.save_each(&slots, to));
            add(COSTS, &|to| account.save_costs(&slots, to));
            add(SESSIONS, &|to| {
                account.save_sessions(&self.roster.gaps(), slots.len(), to);
            });
            add(QUEUE, &|to| account.save_queue(to));
            add(BALANCE, &|to| account.save_balance(to));
        }
        sections
    }

    fn turns(&self) -> Option<&Turns> {
        self.owns.lc.as_deref()
    }

    /// Writes the pool in that form, which holds it.
    pub fn save(&self, format: Format, to: &mut Writer) {
        let gaps = self.roster.gaps();
        to.put(&self.owns.rules);
        to.put(&self.owns.policy.code());
        to.put(&self.picks);
        self.owns.rr.save(&gaps, to);
        self.chance.save(to);
        to.put(&(self.len() as u32));
        for slot in self.roster.members() {
            self.roster.save_name(slot, to);
            self.field.save_seat(slot, to);
            self.owns.wrr.save(&self.field, slot, to);
            self.roster.save_picks(slot, to);
        }
        if format == Format::Plain {
            return;
        }
        let slots = self.roster.slots();
        let (no_account, no_turns);
        let account = match self.account.as_deref() {
            Some(account) => account,
            None => {
                no_account = Account::default();
                &no_account
            }
        };
        let turns = match self.turns() {
            Some(turns) => turns,
            None => {
                no_turns = Turns::of(slots);
                &no_turns
            }
        };
        let leases = account.save_leases();
        account.save_clock(to);
        to.put(&turns.made());
        account.save_limit(Whose::POOL, to);
        leases.save_head(to);
        for slot in self.roster.members() {
            self.field.save_tier(slot, to);
            account.save_limit(Whose::of(slot), to);
            turns.save_last(slot, to);
            account.save_tally(slot, to);
        }
        leases.save(&gaps, self.len(), to);
        if format == Format::Sectioned {
            for (code, section) in self.save_sections() {
                to.put(&code);
                to.put(&Bytes(&section));
            }
        }
    }

    /// Reads a pool in that form into this one, which is new.
    pub fn load(&mut self, format: Format, from: &mut Reader) -> Result<(), Malformed> {
        self.owns.rules = from.get()?;
        if !(1..=Pool::RULES).contains(&self.owns.rules) {
            return Err(Malformed::Version);
        }
        self.owns.policy = Algorithm::by_code(from.get()?).ok_or(Malformed::Version)?;
        self.picks = from.number("picks", COUNTER_MAX)?;
        self.owns.rr.load(from)?;
        self.chance = Chance::load(from)?;
        let members = from.number("size", BACKENDS_MAX as u32)?;
        for _ in 0..members {
            self.load_member(from)?;
        }
        self.field.all_loaded();
        self.owns.grown(members as usize);
        checked("cursor", (), self.owns.rr.is_sound(members as usize))?;
        if format != Format::Plain {
            let gone = self.load_account(from)?;
            if format == Format::Sectioned {
                self.load_sections(&gone, from)?;
            }
            self.are_leases_sound()?;
        }
        checked("size", (), members > 0 || !self.is_void())
    }

    /// Reads a backend. There is no account yet, and no algorithm keeps anything of the backends yet, so that nothing but its weight and
    /// its state decides its running weight.
    fn load_member(&mut self, from: &mut Reader) -> Result<(), Malformed> {
        let name = from.bytes("backend's name", 1..=NAME_MAX)?;
        let seat = Field::load_seat(from)?;
        seat.set_credit(Credits::load(from)?);
        let picks = from.number("backend's picks", COUNTER_MAX)?;
        self.field.add_loaded(seat);
        let is_new = self.roster.add_loaded(Card::new(name, picks));
        checked("backend's name", (), is_new)
    }

    /// Answers the groups of leases whose backends are gone.
    fn load_account(&mut self, from: &mut Reader) -> Result<Vec<u32>, Malformed> {
        let slots = self.roster.slots();
        let mut account = Box::new(Account::default());
        account.load_clock(from)?;
        let mut turns = Turns::load(slots, from)?;
        account.load_limit(Whose::POOL, from)?;
        let head = LeasesHead::load(from)?;
        let mut tiers = BTreeSet::from([0]);
        for slot in 0..slots {
            let tier = from.get()?;
            tiers.insert(tier);
            checked("tiers", (), tiers.len() <= TIERS_MAX)?;
            self.move_to_tier(slot, tier);
            account.load_limit(Whose::of(slot), from)?;
            turns.load_last(slot, from)?;
            account.load_tally(slot, from)?;
        }
        let gone = account.load_leases(&head, slots, from)?;
        self.account = Some(account);
        self.owns.lc = (turns.made() > 0).then(|| Box::new(turns));
        let backends = (0..slots).map(Whose::of);
        for whose in backends.chain([Whose::POOL]) {
            self.recheck(whose);
        }
        Ok(gone)
    }

    /// The leases of a backend that is gone or down are over. By the rules of version 1 nothing is over.
    fn are_leases_sound(&self) -> Result<(), Malformed> {
        let Some(account) = self.account.as_deref() else {
            return Ok(());
        };
        let is_idle = |slot: Slot| account.unmarked_on(slot) == 0;
        let mut seats = self.field.seats().iter().enumerate();
        let is_sound = seats.all(|(slot, seat)| seat.state != State::Down || is_idle(slot));
        checked("lease's backend", (), is_sound && account.are_gone_marked())?;
        checked(
            "deadline",
            (),
            self.owns.rules > 1 || !account.is_any_over(),
        )
    }

    /// They are written in one order, none of them is empty, and there is one at least: equal pools have equal bytes.
    fn load_sections(&mut self, gone: &[u32], from: &mut Reader) -> Result<(), Malformed> {
        let slots = self.roster.slots();
        let mut sections = Vec::new();
        while !from.is_at_end() {
            let code = from.get()?;
            let section = from.bytes("sections", 1..=usize::MAX)?;
            let mut rest = Reader::of(section);
            match (code, &mut self.account) {
                (OVER, Some(account)) => account.load_over(gone, &mut rest)?,
                (HEALTH, Some(account)) => account.load_health(slots, &mut rest)?,
                (LATENCIES, Some(account)) => account.load_latencies(slots, &mut rest)?,
                (EACH, Some(account)) => account.load_each(slots, &mut rest)?,
                (COSTS, Some(account)) => account.load_costs(slots, &mut rest)?,
                (SESSIONS, Some(account)) => account.load_sessions(slots, &mut rest)?,
                (QUEUE, Some(account)) => account.load_queue(&mut rest)?,
                (BALANCE, Some(account)) => account.load_balance(&mut rest)?,
                _ => (self.owns).load_section(code, slots, &mut rest)?,
            }
            checked("sections", (), rest.is_at_end())?;
            sections.push((code, section.to_vec()));
        }
        for slot in 0..slots {
            let weight = self.weight_if_up(slot);
            if let Some(account) = &mut self.account {
                account.loaded(slot, weight);
            }
            // A bucket that no tick has reached keeps its backend out.
            self.refresh(slot);
        }
        let are_all = !sections.is_empty() && sections == self.save_sections();
        checked("sections", (), are_all)
    }

    /// Moves a backend to a tier. Its credit goes with it.
    pub(super) fn move_to_tier(&mut self, slot: Slot, tier: u8) {
        self.suspend(slot);
        self.field.move_to_tier(slot, tier);
        self.refresh(slot);
    }
}
