//! What holds for a store as a whole, whoever has it open: how much of the past it keeps, and who compacts the cluster.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::types::error::{Reason, Result};
use crate::types::options::{Compaction, Options, Retention};

use super::client::Client;
use super::cluster::rows_of;
use super::keys::Keys;
use super::stored::{Row, damaged};
use super::wire::{Compare, KeyValue, PutRequest, RangeRequest, Request, TxnRequest};

/// How often they are written anew when others write them at the same time.
const TRIES: u32 = 8;

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) compaction: Compaction,
    /// How much of the past is kept where watchkeep compacts.
    pub(super) retention: Retention,
}

impl Settings {
    /// How much of the past is kept, as far as that is up to us.
    pub(super) fn kept(&self) -> Retention {
        match self.compaction {
            Compaction::Own => self.retention,
            // Whoever compacts the cluster decides.
            Compaction::Never => Retention::FOREVER,
        }
    }

    /// Whether this stands there: as it is written, for ages are cut to milliseconds.
    fn is_set(&self, set: &Settings) -> bool {
        self.encode(0) == set.encode(0)
    }
}

#[derive(Clone, PartialEq, Message)]
struct SettingsMessage {
    #[prost(bool, tag = "1")]
    own_compaction: bool,
    /// What is no limit is the largest number. Ages are in milliseconds.
    #[prost(uint64, repeated, tag = "2")]
    retention: Vec<u64>,
}

impl Row for Settings {
    const WHAT: &'static str = "settings";

    fn encode(&self, _: u64) -> Bytes {
        let Retention { max_events, max_age, max_bytes, min_events, consumer_age, consumer_bytes } =
            self.retention;
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let message = SettingsMessage {
            own_compaction: self.compaction == Compaction::Own,
            retention: vec![
                max_events,
                millis(max_age),
                max_bytes,
                min_events,
                millis(consumer_age),
                consumer_bytes,
            ],
        };
        message.encode_to_vec().into()
    }

    fn decode(bytes: &[u8], _: i64) -> Option<Settings> {
        let SettingsMessage { own_compaction, retention } = SettingsMessage::decode(bytes).ok()?;
        let [max_events, max_age, max_bytes, min_events, consumer_age, consumer_bytes] =
            retention[..].try_into().ok()?;
        let age = |millis| if millis == u64::MAX { Duration::MAX } else { Duration::from_millis(millis) };
        Some(Settings {
            compaction: if own_compaction { Compaction::Own } else { Compaction::Never },
            retention: Retention {
                max_events,
                max_age: age(max_age),
                max_bytes,
                min_events,
                consumer_age: age(consumer_age),
                consumer_bytes,
            },
        })
    }
}

/// What is set; the defaults where nothing is.
pub(super) fn of(row: Option<&KeyValue>) -> Result<Settings> {
    let Some(kv) = row else { return Ok(Settings::default()) };
    Settings::decode(&kv.value, kv.mod_revision).ok_or_else(|| damaged(Settings::WHAT, &kv.key))
}

/// What is set, at a linearizable point.
pub(super) fn read(client: &Client, keys: &Keys, patience: Duration) -> Result<Settings> {
    let answer = client.range(RangeRequest { key: keys.settings(), ..RangeRequest::default() }, patience)?;
    of(answer.kvs.first())
}

/// Writes what a store is opened with, where that is not so yet; what is set then.
pub(super) fn apply(
    client: &Client,
    keys: &Keys,
    options: &Options,
    mut row: Option<KeyValue>,
) -> Result<Settings> {
    let look = || Request::Range(RangeRequest { key: keys.settings(), ..RangeRequest::default() });
    for _ in 0..TRIES {
        let set = of(row.as_ref())?;
        let wanted = Settings {
            compaction: options.compaction.unwrap_or(set.compaction),
            retention: options.retention.unwrap_or(set.retention),
        };
        if wanted.is_set(&set) {
            return Ok(set);
        }
        let put = Request::Put(PutRequest { key: keys.settings(), value: wanted.encode(0), lease: 0 });
        let modified = row.as_ref().map_or(0, |row| row.mod_revision);
        let request = TxnRequest {
            compare: vec![Compare::modified(keys.settings(), modified)],
            success: vec![put.into(), look().into()],
            failure: vec![look().into()],
        };
        // It may be sent again: once it is done, the compare does not hold any more.
        row = rows_of(client.look(request, super::client::CALL_TIME)?).pop().flatten();
    }
    let said = "others set it to something else all the time".to_owned();
    Err(Reason::Unreachable { said }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_back() {
        for retention in [Retention::default(), Retention::FOREVER, Retention::events(7)] {
            for compaction in [Compaction::Never, Compaction::Own] {
                let set = Settings { compaction, retention };
                assert_eq!(Settings::decode(&set.encode(0), 1), Some(set));
            }
        }
        assert_eq!(Settings::default().kept(), Retention::FOREVER);
    }

    #[test]
    fn what_is_cut_when_it_is_written_counts_as_set() {
        for max_age in [Duration::from_secs(86_400) / 7, Duration::from_secs(u64::MAX), Duration::MAX] {
            let wanted = Settings {
                compaction: Compaction::Own,
                retention: Retention { max_age, ..Retention::default() },
            };
            let set = Settings::decode(&wanted.encode(0), 1).expect("settings");
            assert!(wanted.is_set(&set), "{max_age:?}");
            assert!(!Settings::default().is_set(&set));
        }
    }
}
