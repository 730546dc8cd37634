//! LB.QUEUE: how clients wait for the backends of a pool.

use super::arguments::{Options, is_keyword};
use crate::lb::{Order, QueueSettings, WAITING_MAX};
use crate::server::{Access, Arg, Call, Command, Effect, Error, Key, Kind, Spec};

/// LB.QUEUE
pub struct Queue;

impl Command for Queue {
    const SPEC: Spec = Spec {
        name: "LB.QUEUE",
        summary: "Sets how many clients can wait at a pool (0 = any number), and the order of those that have one PRIO. Without an option it returns the present settings, and how many clients wait for how long.",
        complexity: "O(1); O(W log W) for another order, with W the number of clients that wait",
        since: "0.4.0",
        arity: -2,
        // Not deny-oom: to read the settings, or to take one back, takes no memory.
        flags: "write",
        key: "RW access update",
        args: &[
            Arg::KEY,
            Arg::new("max", Kind::Integer).token("MAX").optional(),
            Arg::new(
                "order",
                Kind::OneOf(&[
                    Arg::token_alone(Order::Fifo.name()),
                    Arg::token_alone(Order::Fair.name()),
                ]),
            )
            .token("ORDER")
            .optional(),
        ],
    };

    type Order<'a> = QueueWords;

    fn read(call: &Call) -> Result<QueueWords, Error> {
        let words = queue_words(call)?;
        match words.sets_any() && call.is_out_of_memory() {
            true => Err(Error::out_of_memory()),
            false => Ok(words),
        }
    }

    fn access(words: &QueueWords) -> Access {
        match words.only_asks() {
            true => Access::Look,
            false => Access::Timeless,
        }
    }

    fn run(words: QueueWords, key: &mut Key, call: &Call) -> Effect {
        let before = key.pool().map(|pool| pool.queue_settings());
        let before = before.unwrap_or_default();
        if words.only_asks() {
            answer(key, call, &before);
            return Effect::None;
        }
        let settings = QueueSettings {
            max: words.max.unwrap_or(before.max),
            order: words.order.unwrap_or(before.order),
        };
        let changed = settings != before && key.pool_or_new().set_queue(settings);
        call.reply().ok();
        Effect::events([(c"lb.queue", usize::from(changed))])
    }
}

/// The arguments behind the key in LB.QUEUE.
pub struct QueueWords {
    max: Option<u32>,
    order: Option<Order>,
}

impl QueueWords {
    fn only_asks(&self) -> bool {
        self.max.is_none() && self.order.is_none()
    }

    /// Whether anything is set that is not the default.
    fn sets_any(&self) -> bool {
        self.max.is_some_and(|max| max > 0) || self.order.is_some_and(|o| o != Order::default())
    }
}

fn queue_words(call: &Call) -> Result<QueueWords, Error> {
    let (mut max, mut order) = (None, None);
    let mut options = Options::of(call.args(2));
    while let Some(word) = options.keyword() {
        let is_repeated = if is_keyword(word, b"MAX") {
            let number = options.number("MAX", 0..=u64::from(WAITING_MAX))?;
            max.replace(number as u32).is_some()
        } else if is_keyword(word, b"ORDER") {
            let name = options.value("ORDER")?;
            let found = (Order::ALL.into_iter())
                .find(|order| name.eq_ignore_ascii_case(order.name().as_bytes()))
                .ok_or_else(|| Error::not_one_of("order", name, "fifo or fair"))?;
            order.replace(found).is_some()
        } else {
            let words = "MAX n or ORDER fifo|fair";
            return Err(Error::not_one_of("keyword", word, words));
        };
        if is_repeated {
            return Err(Error::repeated(word));
        }
    }
    Ok(QueueWords { max, order })
}

fn answer(key: &Key, call: &Call, settings: &QueueSettings) {
    let (waiting, oldest) = key.waits();
    let reply = call.reply();
    reply.map(4);
    reply.field("max", settings.max as usize);
    reply.bulk(b"order");
    reply.bulk(settings.order.name().as_bytes());
    reply.field("waiting", waiting);
    reply.field("oldest-wait-ms", oldest.as_millis() as usize);
}
