//! What a stream handed out and what a write came to, as lines between processes.

use std::fmt::Display;
use std::time::Duration;

use watchkeep::{Kind, Revision, Timestamp, Value};

use crate::record::{Moment, Seen, Span};
use crate::surface::Fault;

/// Longer values are not written out: they come back as their length.
const LONG: usize = 64;

/// The words of a line, taken one after the other.
pub(super) struct Words<'l>(std::str::Split<'l, char>);

impl<'l> Words<'l> {
    pub(super) fn of(line: &'l str) -> Words<'l> {
        Words(line.split('\t'))
    }

    pub(super) fn text(&mut self) -> Result<&'l str, Fault> {
        self.0.next().ok_or_else(|| "a line ends early".into())
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self) -> Result<T, Fault> {
        let word = self.text()?;
        word.parse().map_err(|_| format!("{word:?} is no number").into())
    }

    /// What [`or_none`] made.
    pub(super) fn optional(&mut self) -> Result<Option<&'l str>, Fault> {
        Ok(Some(self.text()?).filter(|word| *word != "-"))
    }

    pub(super) fn revision(&mut self) -> Result<Revision, Fault> {
        self.number().map(Revision::new)
    }

    pub(super) fn moment(&mut self) -> Result<Moment, Fault> {
        let tick = self.number()?;
        Ok(Moment { tick, at: Duration::from_nanos(tick) })
    }

    pub(super) fn span(&mut self) -> Result<Span, Fault> {
        Ok(Span { called: self.moment()?, returned: self.moment()? })
    }

    fn optional_number<T: std::str::FromStr>(&mut self) -> Result<Option<T>, Fault> {
        let Some(word) = self.optional()? else { return Ok(None) };
        word.parse().map(Some).map_err(|_| format!("{word:?} is no number").into())
    }

    pub(super) fn seen(&mut self) -> Result<Seen, Fault> {
        let kind = self.text()?;
        Ok(Seen {
            kind: Kind::ALL
                .into_iter()
                .find(|known| known.as_str() == kind)
                .ok_or_else(|| format!("{kind:?} is no kind"))?,
            revision: self.revision()?,
            commit: self.revision()?,
            group: self.text()?.to_owned(),
            key: self.optional()?.map(str::to_owned),
            value: self.optional()?.map(Value::from),
            content_type: None,
            deadline: self.optional_number()?.map(Timestamp::from_millis),
            previous: self.optional_number()?.map(Revision::new),
            previous_value: None,
            origin: self.optional()?.map(str::to_owned),
            timestamp: Timestamp::from_millis(self.number()?),
            snapshot: false,
        })
    }
}

pub(super) fn or_none(word: Option<impl Display>) -> String {
    word.map_or_else(|| "-".to_owned(), |word| word.to_string())
}

pub(super) fn span(called: Moment, returned: Moment) -> String {
    format!("{}\t{}", called.tick, returned.tick)
}

pub(super) fn seen(seen: &Seen) -> String {
    let value = seen.value.as_ref().map(|value| match value.len() {
        0..=LONG => value.to_string_lossy().into_owned(),
        long => format!("({long} bytes)"),
    });
    [
        seen.kind.as_str().to_owned(),
        seen.revision.to_string(),
        seen.commit.to_string(),
        seen.group.clone(),
        or_none(seen.key.as_ref()),
        or_none(value),
        or_none(seen.deadline.map(Timestamp::as_millis)),
        or_none(seen.previous),
        or_none(seen.origin.as_ref()),
        seen.timestamp.as_millis().to_string(),
    ]
    .join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_comes_back() -> Result<(), Fault> {
        let mut event = crate::record::Seen {
            revision: Revision::new(7),
            commit: Revision::new(8),
            kind: Kind::Expire,
            group: "g".to_owned(),
            key: Some("k".to_owned()),
            value: Some("a value".into()),
            content_type: None,
            deadline: Some(Timestamp::from_millis(5)),
            previous: Some(Revision::new(3)),
            previous_value: None,
            origin: None,
            timestamp: Timestamp::from_millis(9),
            snapshot: false,
        };
        assert_eq!(Words::of(&seen(&event)).seen()?, event);
        event.kind = Kind::DeleteGroup;
        (event.key, event.value, event.deadline, event.previous) = (None, None, None, None);
        event.origin = Some("me".to_owned());
        assert_eq!(Words::of(&seen(&event)).seen()?, event);
        assert!(Words::of("set\t1").seen().is_err());
        Ok(())
    }
}
