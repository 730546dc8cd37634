//! The settings for clients that wait.

use super::parts::Pool;
use crate::lb::account::QueueSettings;

impl Pool {
    /// The settings of the queue.
    pub fn queue_settings(&self) -> QueueSettings {
        (self.account.as_ref()).map_or(QueueSettings::default(), |a| a.queue_settings())
    }

    /// Changes them; answers whether that changed anything.
    pub fn set_queue(&mut self, settings: QueueSettings) -> bool {
        let changed = settings != self.queue_settings();
        if changed {
            self.account().set_queue(settings);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lb::account::{Order, WAITING_MAX};
    use crate::lb::codec::{self, Malformed, Stored};

    const ALL: [QueueSettings; 3] = [
        QueueSettings {
            max: 0,
            order: Order::Fair,
        },
        QueueSettings {
            max: 7,
            order: Order::Fifo,
        },
        QueueSettings {
            max: WAITING_MAX,
            order: Order::Fair,
        },
    ];

    #[test]
    fn settings_are_saved_where_they_are_not_the_default() {
        let mut pool = Pool::new();
        assert!(!pool.set_queue(QueueSettings::default()) && pool.is_void());
        pool.add(b"a", None);
        let before = codec::encode(&pool);
        for settings in ALL {
            assert!(pool.set_queue(settings) && !pool.set_queue(settings));
            let Ok(Stored::Pool(read)) = codec::decode(&codec::encode(&pool)) else {
                panic!("it is sound");
            };
            assert_eq!(read.queue_settings(), settings);
            assert_eq!(codec::encode(&read), codec::encode(&pool));
        }
        pool.remove(b"a");
        assert!(!pool.is_void());
        pool.set_queue(QueueSettings::default());
        assert!(pool.is_void());
        pool.add(b"a", None);
        assert_eq!(codec::encode(&pool), before);
    }

    #[test]
    fn settings_that_no_pool_has_are_refused() {
        let mut pool = Pool::new();
        pool.set_queue(ALL[1]);
        let bytes = codec::encode(&pool);
        let (rest, section) = bytes.split_at(bytes.len() - 4);
        assert_eq!(section, [134, 2, 7, 0]);
        let refused = |section: &[u8]| codec::decode(&[rest, section].concat()).err();
        assert_eq!(refused(section), None);
        assert_eq!(refused(&[134, 2, 0, 0]), Some(Malformed::Field("sections")));
        assert_eq!(refused(&[134, 2, 7, 2]), Some(Malformed::Syntax));
        assert_eq!(
            refused(&[134, 3, 7, 0, 0]),
            Some(Malformed::Field("sections"))
        );
        let too_many = [134, 6, 0x80, 0x80, 0x80, 0x80, 8, 0];
        assert_eq!(refused(&too_many), Some(Malformed::Field("queue")));
    }
}
