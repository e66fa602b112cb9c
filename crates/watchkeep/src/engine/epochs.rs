//! Epochs: which revisions were given between which boots and copies of a store, so that no cursor means two things.

use crate::types::error::{Reason, Result};
use crate::types::revision::{Cursor, Epoch, Revision, StoreId};

/// The epochs of a store, the oldest first. An epoch begins after its floor, the last revision before it, and ends with
/// the floor of the next; one in which nothing was given is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Epochs(Vec<(Epoch, Revision)>);

impl Epochs {
    /// None when there is no epoch, which no store is without.
    pub(crate) fn new(epochs: Vec<(Epoch, Revision)>) -> Option<Epochs> {
        (!epochs.is_empty()).then_some(Epochs(epochs))
    }

    /// Of a store that was never copied and lives through no boot.
    pub(crate) fn only(epoch: Epoch) -> Epochs {
        Epochs(vec![(epoch, Revision::ZERO)])
    }

    pub(crate) fn cursor(&self, store: StoreId, revision: Revision) -> Cursor {
        let mut epochs = self.0.iter().rev();
        let epoch = epochs.find(|(_, floor)| *floor < revision).or(self.0.first());
        Cursor::new(store, epoch.map_or(Epoch::NONE, |(epoch, _)| *epoch), revision)
    }

    /// Refuses a cursor of this store whose event is not here: its epoch ended before it, is not known, or has not come so
    /// far.
    pub(crate) fn refuse_lost(&self, cursor: Cursor, last: Revision) -> Result<()> {
        if cursor.revision() <= last && self.cursor(cursor.store(), cursor.revision()) == cursor {
            Ok(())
        } else {
            Err(Reason::LostCursor { cursor }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_in_the_epoch_in_which_its_revision_was_given_and_nowhere_else() -> Result<()> {
        let [first, empty, second, unknown] = [(); 4].map(|()| Epoch::random().expect("random letters"));
        let at = Revision::new;
        let epochs = Epochs::new(vec![(first, at(0)), (empty, at(10)), (second, at(10))]).expect("epochs");
        let (store, last) = (StoreId::random()?, at(12));
        for (revision, epoch) in
            [(0, first), (1, first), (10, first), (11, second), (12, second), (13, second)]
        {
            let cursor = epochs.cursor(store, at(revision));
            assert_eq!((cursor.epoch(), cursor.revision()), (epoch, at(revision)));
            assert_eq!(epochs.refuse_lost(cursor, last).is_ok(), revision <= 12, "{revision}");
            for other in [first, empty, second, unknown].into_iter().filter(|other| *other != epoch) {
                let lost = Cursor::new(store, other, at(revision));
                assert!(epochs.refuse_lost(lost, last).is_err(), "{revision} in {other}");
            }
        }
        Ok(())
    }
}
