//! A number that stands for all that a batch says: the same batch has the same one on every machine and in every release.

use super::batch::{Batch, Condition, Must, Operation};
use super::writing::{Expected, Ttl};

/// CRC-32 (IEEE 802.3) over the fields in their order: each text and value as its length, eight bytes little-endian, and
/// its bytes; each number as eight bytes; what may be absent with a byte before it.
struct Digest(crc32fast::Hasher);

impl Digest {
    fn tag(&mut self, tag: u8) {
        self.0.update(&[tag]);
    }

    fn number(&mut self, number: i64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.number(i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        self.0.update(bytes);
    }

    fn expected(&mut self, expected: Option<Expected>) {
        match expected {
            None => self.tag(0),
            Some(Expected::Absent) => self.tag(1),
            Some(Expected::Present) => self.tag(2),
            Some(Expected::At(revision)) => {
                self.tag(3);
                self.number(revision.as_i64());
            }
        }
    }

    fn condition(&mut self, Condition(must): &Condition) {
        match must {
            Must::Entry { group, key, be, at } => {
                self.tag(b'e');
                self.bytes(group);
                self.bytes(key);
                self.expected(Some(*be));
                self.tag(u8::from(at.is_some()));
                if let Some(at) = at {
                    self.bytes(at.epoch().as_str());
                }
            }
            Must::Group { group, present } => {
                self.tag(b'g');
                self.bytes(group);
                self.tag(u8::from(*present));
            }
            Must::Unchanged { filter, since } => {
                self.tag(b'u');
                self.bytes(filter.to_string());
                self.bytes(since.epoch().as_str());
                self.number(since.revision().as_i64());
            }
        }
    }

    fn ttl(&mut self, ttl: Ttl) {
        let millis = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        match ttl {
            Ttl::Clear => self.tag(0),
            Ttl::Keep => self.tag(1),
            Ttl::For(time) => {
                self.tag(2);
                self.number(millis(time));
            }
            Ttl::Until(deadline) => {
                self.tag(3);
                self.number(deadline.as_millis());
            }
        }
    }

    fn operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Set { group, key, value, ttl, expected, content_type } => {
                self.tag(b's');
                self.bytes(group);
                self.bytes(key);
                self.bytes(value);
                self.ttl(*ttl);
                self.expected(*expected);
                self.tag(u8::from(content_type.is_some()));
                self.bytes(content_type.as_deref().unwrap_or_default());
            }
            Operation::Delete { group, key, expected } => {
                self.tag(b'd');
                self.bytes(group);
                self.bytes(key);
                self.expected(*expected);
            }
            Operation::DeleteGroup { group } => {
                self.tag(b'D');
                self.bytes(group);
            }
            Operation::DeletePrefix { prefix } => {
                self.tag(b'P');
                self.bytes(prefix);
            }
            Operation::Touch { group, key, ttl } => {
                self.tag(b't');
                self.bytes(group);
                self.bytes(key);
                self.ttl(ttl.map_or(Ttl::Clear, Ttl::For));
            }
        }
    }
}

impl Batch {
    /// What stands for its conditions and operations.
    pub(crate) fn digest(&self) -> u32 {
        let mut digest = Digest(crc32fast::Hasher::new());
        self.conditions.iter().for_each(|condition| digest.condition(condition));
        digest.tag(b'|');
        self.operations.iter().for_each(|operation| digest.operation(operation));
        digest.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::clock::Timestamp;
    use crate::types::error::Result;
    use crate::types::event::Kind;
    use crate::types::filter::Filter;
    use crate::types::writing::SetOptions;

    #[test]
    fn what_differs_has_another_number_and_what_is_the_same_always_the_same() -> Result<()> {
        let batch = || Batch::new().require(Condition::absent("g", "k"));
        let (one, other) = ("00000000-000000-7".parse()?, "00000000-000001-7".parse()?);
        let (at, all) = (|at| Condition::at("g", "k", at), Filter::everything);
        let batches = [
            Batch::new(),
            batch(),
            batch().set("g", "k", "v"),
            batch().set("gk", "", "v"),
            batch().set("g", "k", "w"),
            batch().set_with("g", "k", "v", SetOptions::new().content_type("")),
            batch().set_with("g", "k", "v", SetOptions::new().keep_ttl()),
            batch().set_with("g", "k", "v", SetOptions::new().ttl(Duration::from_secs(1))),
            batch().set_with("g", "k", "v", SetOptions::new().if_absent()),
            batch().delete("g", "k"),
            batch().delete_group("g"),
            batch().delete_prefix("g"),
            batch().persist("g", "k"),
            batch().touch("g", "k", Duration::from_secs(1)),
            Batch::new().require(Condition::group_absent("g")),
            Batch::new().require(Condition::group_present("g")),
            Batch::new().require(at(one)),
            Batch::new().require(at(other)),
            Batch::new().require(Condition::unchanged(all(), one)),
            Batch::new().require(Condition::unchanged(all(), other)),
        ];
        let mut numbers: Vec<_> = batches.iter().map(Batch::digest).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), batches.len());
        Ok(())
    }

    /// The number stands in files: a batch that comes again after an upgrade has to be known again.
    #[test]
    fn the_number_of_a_batch_does_not_change_from_release_to_release() -> Result<()> {
        let at = "00000000-000000-7".parse()?;
        let filters = Filter::any([Filter::key_prefix("g", "k").exclude_origin("me"), Filter::key_name("k")]);
        let batch = Batch::new()
            .require(Condition::absent("g", "k"))
            .require(Condition::present("g", "k"))
            .require(Condition::at("g", "k", at))
            .require(Condition::group_absent("g"))
            .require(Condition::group_present("g"))
            .require(Condition::unchanged(Filter::everything().kinds(Kind::ALL), at))
            .require(Condition::unchanged(filters.without_group_deletions(), at))
            .set_with("g", "k", "v", SetOptions::new().ttl(Duration::from_secs(1)).content_type("t"))
            .set_with("g", "k", "v", SetOptions::new().expires_at(Timestamp::from_millis(1)))
            .set_with("g", "k", "v", SetOptions::new().keep_ttl())
            .delete("g", "k")
            .delete_group("g")
            .delete_prefix("g")
            .touch("g", "k", Duration::from_secs(1))
            .persist("g", "k");
        assert_eq!((Batch::new().digest(), batch.digest()), (2_343_686_810, 3_446_508_817));
        Ok(())
    }
}
