//! Health in the plainest form: each backend keeps the log of its reports, time passes millisecond by millisecond, and all sums are
//! made anew.

pub type Millis = u64;

/// The settings of LB.HEALTH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub fails: u32,
    pub failrate: u8,
    pub min: u32,
    pub window: Millis,
    pub eject: Millis,
    pub max_eject: u8,
    pub slow_start: Millis,
    pub adapt: Millis,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            fails: 0,
            failrate: 0,
            min: 20,
            window: 5000,
            eject: 5000,
            max_eject: 50,
            slow_start: 0,
            adapt: 0,
        }
    }
}

impl Settings {
    fn ejects(&self) -> bool {
        self.fails > 0 || self.failrate > 0
    }
}

#[derive(Clone, Debug, Default)]
pub struct Health {
    pub settings: Settings,
    pub backends: Vec<Backend>,
    pub clock: Millis,
    pub held: u64,
    pub has_fractions: bool,
}

#[derive(Clone, Debug)]
pub struct Backend {
    /// 0 where it is not up.
    pub weight: u16,
    /// When it counted reports, and whether they were failures, since it was ejected or came back last. No time is long ago.
    log: Vec<(Option<Millis>, bool)>,
    pub outage: Option<Outage>,
    pub cool: Millis,
    strikes: u64,
    span: Millis,
    back: Millis,
    from: u64,
    pub ejections: u64,
    /// When its slow start began, and how long it takes.
    start: Option<(Millis, Millis)>,
    factor: u128,
    pub load: Option<u128>,
    tells_load: bool,
    period: Option<Period>,
    /// In 1/16 microsecond.
    pub level: Option<u64>,
    is_well: bool,
    since: Millis,
}

/// Since a backend was ejected.
#[derive(Clone, Debug)]
pub struct Outage {
    left: Millis,
    /// The lease of the last probe, where that had one.
    prober: Option<Option<u64>>,
    /// When it had cooled last while it was probed.
    cooled: Option<Millis>,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    Out(Millis),
    Due(Millis),
    Probing(Millis),
}

#[derive(Clone, Debug)]
struct Period {
    began: Millis,
    heard: Millis,
    loads: Vec<u64>,
    outcomes: Vec<bool>,
}

fn deadline(clock: Millis, span: Millis) -> Millis {
    (clock + span + 10).div_ceil(10) * 10
}

impl Default for Backend {
    fn default() -> Backend {
        Backend {
            weight: 0,
            log: vec![],
            outage: None,
            cool: 0,
            strikes: 0,
            span: 0,
            back: 0,
            from: 0,
            ejections: 0,
            start: None,
            factor: 1 << 16,
            load: None,
            tells_load: false,
            period: None,
            level: None,
            is_well: false,
            since: 0,
        }
    }
}

impl Backend {
    pub fn is_in(&self) -> bool {
        self.weight > 0 && self.is_fit()
    }

    /// Whether it is neither ejected nor cooling.
    pub fn is_fit(&self) -> bool {
        self.outage.is_none() && self.cool == 0
    }

    /// Failures at the end of the log.
    pub fn row(&self) -> usize {
        let fails = self.log.iter().rev().take_while(|(_, failed)| *failed);
        fails.count()
    }

    pub fn tenths(&self, clock: Millis) -> u128 {
        let tenths = |(from, span): (Millis, Millis)| ((clock - from) * 10 / span + 1).min(10);
        self.start.map_or(10, tenths).into()
    }

    /// Whether a report of that lease, or of a caller without one, is evidence.
    pub fn counts(&self, lease: Option<u64>) -> bool {
        let is_of_now = match (lease, &self.outage) {
            (Some(number), _) => number >= self.from,
            (None, None) => true,
            (None, Some(outage)) => outage.prober == Some(None),
        };
        self.weight > 0 && is_of_now
    }

    pub fn wakes(&self) -> Option<Millis> {
        match self.outage.as_ref().map(|outage| outage.stage) {
            None => (self.cool > 0).then_some(self.cool),
            Some(Stage::Out(until) | Stage::Probing(until)) => Some(until.max(self.cool)),
            Some(Stage::Due(_)) => None,
        }
    }

    fn known(&self) -> Option<(u128, u128)> {
        let load = self.load?;
        let share = u128::from(self.weight) * self.factor;
        Some((share, (share << 32) / load))
    }
}

impl Health {
    pub fn set(&mut self, settings: Settings, next_lease: u64) {
        let before = std::mem::replace(&mut self.settings, settings);
        self.has_fractions |= settings.slow_start > 0 || settings.adapt > 0;
        let clock = self.clock;
        for backend in &mut self.backends {
            if before.ejects() && !settings.ejects() {
                if backend.outage.take().is_some() {
                    backend.back = clock;
                    backend.from = next_lease;
                    backend.since = backend.since.max(clock);
                }
                backend.strikes = 0;
                backend.log.clear();
            }
            if before.window != settings.window || settings.failrate == 0 {
                // Only the failures in a row are left.
                let row = backend.row();
                backend.log = vec![(None, true); row];
            }
            if settings.slow_start == 0 {
                backend.start = None;
            }
            if settings.adapt == 0 {
                backend.factor = 1 << 16;
                (backend.load, backend.tells_load, backend.period) = (None, false, None);
            }
        }
    }

    pub fn set_weight(&mut self, at: usize, weight: u16) {
        let backend = &mut self.backends[at];
        let was_in = backend.is_in();
        backend.weight = weight;
        if !was_in && backend.is_in() {
            backend.since = backend.since.max(self.clock);
        }
    }

    /// Whether newcomers of this weight in all start slowly, in a pool that has picked before.
    pub fn slows(&self, newcomers: u64) -> bool {
        let others: u64 = self.backends.iter().map(|b| u64::from(b.weight)).sum();
        self.settings.slow_start > 0 && newcomers < others
    }

    pub fn add(&mut self, weight: u16, starts: bool) {
        let span = self.settings.slow_start;
        self.backends.push(Backend {
            weight,
            start: starts.then_some((self.clock, span)),
            since: if weight > 0 { self.clock } else { 0 },
            ..Backend::default()
        });
    }

    pub fn running_weight(&self, at: usize) -> u128 {
        let backend = &self.backends[at];
        let weight = u128::from(backend.weight);
        match (backend.is_in(), self.has_fractions) {
            (false, _) => 0,
            (true, false) => weight,
            (true, true) => {
                let started = weight * 24 * backend.tenths(self.clock);
                ((started * backend.factor) >> 16).clamp(1, (1 << 24) - 1)
            }
        }
    }

    /// The backends of which a probe is due, the first one first.
    pub fn probes(&self) -> Vec<usize> {
        let due = |(at, backend): (usize, &Backend)| match backend.outage.as_ref()?.stage {
            Stage::Due(since) => Some((since, at)),
            _ => None,
        };
        let mut all: Vec<_> = self.backends.iter().enumerate().filter_map(due).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, at)| at).collect()
    }

    pub fn take_probe(&mut self, at: usize, lease: Option<u64>) {
        let until = deadline(self.clock, self.settings.eject);
        let outage = self.backends[at].outage.as_mut().expect("a probe is due");
        outage.prober = Some(lease);
        outage.cooled = None;
        outage.stage = Stage::Probing(until);
    }

    /// Whether it was evidence, ejected the backend, brought it back, made it cool.
    pub fn report(
        &mut self,
        at: usize,
        lease: Option<u64>,
        outcome: Option<bool>,
        load: Option<u64>,
        cool: Option<Millis>,
        next_lease: u64,
    ) -> [bool; 4] {
        let counted = self.backends[at].counts(lease);
        let failed = outcome.filter(|_| counted);
        self.adapt(at, failed, load);
        let (mut ejected, mut back) = (false, false);
        if let Some(failed) = failed.filter(|_| self.settings.ejects()) {
            match self.backends[at].outage {
                None => ejected = self.judge(at, failed, next_lease),
                Some(_) => back = self.probed(at, failed, next_lease),
            }
        }
        if let Some(number) = lease {
            self.lease_ended(at, number);
        }
        let until = cool.map_or(0, |span| deadline(self.clock, span));
        let backend = &mut self.backends[at];
        let cools = until > backend.cool;
        if cools {
            backend.cool = until;
            if let Some(outage) = &mut backend.outage
                && let Stage::Due(_) = outage.stage
            {
                outage.stage = Stage::Out(until);
            }
        }
        [counted, ejected, back, cools]
    }

    fn judge(&mut self, at: usize, failed: bool, next_lease: u64) -> bool {
        let (clock, settings) = (self.clock, self.settings);
        let backend = &mut self.backends[at];
        // Windows are counted while FAILRATE is set.
        let time = (settings.failrate > 0).then_some(clock);
        backend.log.push((time, failed));
        if !failed {
            if clock - backend.back >= backend.span {
                backend.strikes = 0;
            }
            return false;
        }
        let window = clock / settings.window;
        let recent = backend.log.iter();
        let recent =
            recent.filter(|(time, _)| time.is_some_and(|t| t / settings.window + 1 >= window));
        let (reports, fails) = recent.fold((0, 0), |(reports, fails), (_, failed)| {
            (reports + 1, fails + u64::from(*failed))
        });
        let by_row = settings.fails > 0 && backend.row() >= settings.fails as usize;
        let by_rate = settings.failrate > 0
            && reports >= settings.min
            && fails * 100 >= u64::from(reports) * u64::from(settings.failrate);
        if !by_row && !by_rate {
            return false;
        }
        let serving: Vec<_> = self.backends.iter().filter(|b| b.weight > 0).collect();
        let out = serving.iter().filter(|b| b.outage.is_some()).count();
        let most = (serving.len() * usize::from(settings.max_eject) / 100).max(1);
        let mut others = self.backends.iter().enumerate();
        if out >= most || !others.any(|(other, b)| other != at && b.is_in()) {
            self.held += 1;
            return false;
        }
        let backend = &mut self.backends[at];
        backend.ejections += 1;
        backend.eject(clock, clock, &settings, next_lease);
        true
    }

    fn probed(&mut self, at: usize, failed: bool, next_lease: u64) -> bool {
        let (clock, settings) = (self.clock, self.settings);
        let backend = &mut self.backends[at];
        let left = backend.outage.as_ref().expect("it is out").left;
        if failed {
            backend.eject(left, clock, &settings, next_lease);
            return false;
        }
        backend.outage = None;
        backend.log.clear();
        backend.back = clock;
        backend.from = next_lease;
        backend.since = backend.since.max(clock);
        let span = settings.slow_start.min(clock - left);
        if span > 0 {
            backend.start = Some((clock, span));
        }
        true
    }

    /// A lease ended and nobody told how it went.
    pub fn lease_ended(&mut self, at: usize, number: u64) {
        let clock = self.clock;
        let backend = &mut self.backends[at];
        if let Some(outage) = &mut backend.outage
            && let Stage::Probing(until) = outage.stage
            && outage.prober == Some(Some(number))
        {
            outage.stage = match backend.cool {
                cool if cool > clock => Stage::Out(cool),
                _ => Stage::Due(outage.cooled.unwrap_or(until)),
            };
        }
    }

    pub fn restore(&mut self, at: usize, next_lease: u64) -> bool {
        let clock = self.clock;
        let backend = &mut self.backends[at];
        let was_ejected = backend.outage.take().is_some();
        let was_out = was_ejected || backend.cool > 0;
        let was_in = !was_ejected && backend.is_in();
        backend.cool = 0;
        if was_ejected {
            backend.log.clear();
            (backend.back, backend.from, backend.strikes) = (clock, next_lease, 0);
        }
        if !was_in && backend.is_in() {
            backend.since = backend.since.max(clock);
        }
        was_out
    }

    fn adapt(&mut self, at: usize, failed: Option<bool>, load: Option<u64>) {
        let (clock, step) = (self.clock, self.settings.adapt);
        let backend = &mut self.backends[at];
        let tells = failed.is_some() || load.is_some();
        if step == 0 || !tells || backend.weight == 0 || backend.tenths(clock) < 10 {
            return;
        }
        let fresh = || Period {
            began: clock,
            heard: clock,
            loads: vec![],
            outcomes: vec![],
        };
        let period = backend.period.get_or_insert_with(fresh);
        period.outcomes.extend(failed);
        period.loads.extend(load);
        backend.tells_load |= load.is_some();
        if failed != Some(true) && load.is_none() {
            return;
        }
        period.heard = clock;
        if clock - period.began < step {
            return;
        }
        let mean = |sum: u64, n: usize| sum.checked_div(n as u64).unwrap_or(0);
        let load = mean(period.loads.iter().sum(), period.loads.len());
        let fails = period.outcomes.iter().filter(|failed| **failed).count() as u64;
        let share = mean(fails * 1_000_000, period.outcomes.len());
        let load = u128::from((load + share).clamp(62_500, 1_000_000_000));
        backend.load = Some(load);
        *period = fresh();
        let known = self.backends.iter().filter_map(Backend::known);
        let (shares, capacities) = known.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        let equal = (shares << 32) / capacities;
        if equal.abs_diff(load) * 16 > equal {
            let factor = &mut self.backends[at].factor;
            *factor = (*factor * 8 * equal / (7 * equal + load)).clamp(1 << 12, 1 << 20);
        }
    }

    /// The mean level of those that are well, but for one.
    fn mean_but(&self, but: usize) -> Option<u64> {
        let others = self.backends.iter().enumerate().filter(|(i, _)| *i != but);
        let levels = others
            .filter(|(_, b)| b.is_well)
            .map(|(_, b)| b.level.unwrap());
        let levels: Vec<u64> = levels.collect();
        let sum: u64 = levels.iter().sum();
        sum.checked_div(levels.len() as u64)
    }

    pub fn level(&self, at: usize) -> u64 {
        let mean = self.mean_but(usize::MAX).unwrap_or(16);
        self.backends[at].level.unwrap_or(mean)
    }

    /// An outcome that counted, where the pool has this number of leases.
    pub fn latency(&mut self, at: usize, failed: bool, micros: Option<u64>, leases: u64) {
        let clock = self.clock;
        let others = self.mean_but(at);
        let well = self.backends.iter().filter(|b| b.is_well).count() as u64;
        let loaded = leases / well.max(1) + 1;
        let backend = &mut self.backends[at];
        match (failed, micros, others) {
            (false, None, _) => return,
            (false, Some(micros), others) => {
                let told = (micros as i128 * 16).clamp(16, (1 << 39) - 1);
                let before = backend.level.map_or(told, i128::from);
                let most = others.map_or(i128::MAX, |mean| i128::from(mean) * 64);
                let moved = before + (told - before) / 8;
                backend.level = Some(moved.min(most.max(before)) as u64);
                backend.is_well = true;
            }
            (true, _, Some(mean)) => {
                let before = u128::from(backend.level.unwrap_or(mean));
                let most = u128::from(mean * 64) * u128::from(loaded * loaded);
                let level = (2 * before).min(most.max(before)).min((1 << 39) - 1);
                backend.level = Some(level as u64);
                backend.is_well = false;
            }
            (true, _, None) => {}
        }
        backend.since = clock;
    }

    /// A millisecond passes.
    pub fn pass(&mut self) {
        self.clock += 1;
        for backend in &mut self.backends {
            backend.pass(self.clock, self.settings.adapt);
        }
    }

    /// A tick that does not move the clock.
    pub fn look_again(&mut self) {
        for backend in &mut self.backends {
            backend.pass(self.clock, self.settings.adapt);
        }
    }

    /// From now on reports move latencies.
    pub fn heed_latencies(&mut self) {
        for backend in &mut self.backends {
            (backend.level, backend.is_well) = (None, false);
        }
    }

    /// Whether a backend was silent for too long, and no tick has come since then.
    pub fn is_any_over(&self) -> bool {
        let mut periods = self.backends.iter().filter_map(|b| b.period.as_ref());
        periods.any(|period| self.clock >= period.heard + 10 * self.settings.adapt)
    }
}

impl Backend {
    fn eject(&mut self, left: Millis, clock: Millis, settings: &Settings, next_lease: u64) {
        self.strikes += 1;
        self.span = settings.eject * self.strikes.min(10);
        self.from = next_lease;
        self.log.clear();
        self.outage = Some(Outage {
            left,
            prober: None,
            cooled: None,
            stage: Stage::Out(deadline(clock, self.span)),
        });
    }

    fn pass(&mut self, now: Millis, step: Millis) {
        let wakes = self.wakes() == Some(now);
        if self.cool == now {
            self.cool = 0;
            if let Some(outage) = &mut self.outage {
                outage.cooled = Some(now);
            }
        }
        match &mut self.outage {
            Some(outage) if wakes => outage.stage = Stage::Due(now),
            None if wakes && self.weight > 0 => self.since = self.since.max(now),
            _ => {}
        }
        if self.start.is_some() && self.tenths(now) == 10 {
            self.start = None;
        }
        let is_silent = |period: &Period| now >= period.heard + 10 * step;
        if self.period.as_ref().is_some_and(is_silent) {
            self.factor = 1 << 16;
            self.load = (!self.tells_load).then_some(62_500);
            (self.tells_load, self.period) = (false, None);
        }
        if let Some(level) = self.level.filter(|level| *level > 16)
            && self.is_in()
            && now == self.since + 10_000
        {
            self.level = Some((level / 2).max(16));
            self.since = now;
        }
    }
}
