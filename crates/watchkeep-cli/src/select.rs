//! Which events are meant, and from where on: what `watch` and `history` share.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use watchkeep::{ConsumerStart, Cursor, Filter, Kind, LagPolicy, Revision, Store};

use crate::exit::{Failure, Result, USAGE};

/// A place in the change log as it is typed: a cursor, or a bare revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    Cursor(Cursor),
    Revision(Revision),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        let bare = text.parse().map(Position::Revision);
        let position = bare.or_else(|_| text.parse().map(Position::Cursor));
        position.map_err(|error: watchkeep::Error| format!("{error}, or is a bare revision like 7"))
    }
}

impl Position {
    /// The revision, of a cursor only if its event is this store's.
    pub(crate) fn revision(self, store: &Store) -> Result<Revision> {
        match self {
            Position::Revision(revision) => Ok(revision),
            Position::Cursor(cursor) => Ok(store.revision_of(cursor)?),
        }
    }
}

impl From<Position> for ConsumerStart {
    fn from(position: Position) -> ConsumerStart {
        match position {
            Position::Cursor(cursor) => ConsumerStart::AfterCursor(cursor),
            Position::Revision(revision) => ConsumerStart::After(revision),
        }
    }
}

/// Where a consumer goes on, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beginning(pub(crate) ConsumerStart);

impl FromStr for Beginning {
    type Err = String;

    fn from_str(text: &str) -> Result<Beginning, String> {
        Ok(Beginning(match text {
            "now" => ConsumerStart::Now,
            "start" => ConsumerStart::Beginning,
            "snapshot" => ConsumerStart::Snapshot,
            text => text.parse::<Position>()?.into(),
        }))
    }
}

/// Which events.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Only this group; `*` is any
    pub(crate) group: Option<String>,
    /// Only this key, and the deletion of its group; `*` is any
    pub(crate) key: Option<String>,
    /// Only groups whose names start so
    #[arg(long, value_name = "P", conflicts_with = "group")]
    pub(crate) group_prefix: Option<String>,
    /// Only keys of the group that start so
    #[arg(long, value_name = "P", conflicts_with = "key", requires = "group")]
    pub(crate) key_prefix: Option<String>,
    /// Take `*` as a name
    #[arg(long)]
    pub(crate) literal: bool,
    /// Only events of this kind; may be repeated. `touch`, a changed deadline, comes only if named
    #[arg(long = "kind", value_enum, value_name = "KIND")]
    pub(crate) kinds: Vec<KindName>,
    /// Not what was written under this label
    #[arg(long, value_name = "LABEL")]
    pub(crate) exclude_origin: Option<String>,
}

impl Selection {
    /// Whether nothing is said: all events.
    pub(crate) fn is_empty(&self) -> bool {
        let named = self.group.is_some() || self.key.is_some() || self.group_prefix.is_some();
        !named && self.kinds.is_empty() && self.exclude_origin.is_none()
    }

    pub(crate) fn filter(&self) -> Result<Filter> {
        let mut filter = self.target()?;
        if !self.kinds.is_empty() {
            filter = filter.kinds(self.kinds.iter().map(|&kind| kind.into()));
        }
        if let Some(origin) = &self.exclude_origin {
            filter = filter.exclude_origin(origin);
        }
        Ok(filter)
    }

    fn target(&self) -> Result<Filter> {
        let named = |name: &'_ Option<String>| name.clone().filter(|name| self.literal || name != "*");
        Ok(match (named(&self.group), named(&self.key), &self.group_prefix, &self.key_prefix) {
            (_, _, Some(groups), _) => Filter::group_prefix(groups),
            (Some(group), _, _, Some(keys)) => Filter::key_prefix(group, keys),
            (None, _, _, Some(_)) => {
                return Err(Failure::new(
                    USAGE,
                    "--key-prefix needs one group; name it, or leave the option out",
                ));
            }
            (Some(group), Some(key), ..) => Filter::key(group, key),
            (Some(group), None, ..) => Filter::group(group),
            (None, Some(key), ..) => Filter::key_name(key),
            (None, None, ..) => Filter::everything(),
        })
    }
}

/// A kind of event as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum KindName {
    Set,
    Delete,
    #[value(alias = "delete-group")]
    DeleteGroup,
    Expire,
    Touch,
}

impl From<KindName> for Kind {
    fn from(kind: KindName) -> Kind {
        match kind {
            KindName::Set => Kind::Set,
            KindName::Delete => Kind::Delete,
            KindName::DeleteGroup => Kind::DeleteGroup,
            KindName::Expire => Kind::Expire,
            KindName::Touch => Kind::Touch,
        }
    }
}

/// What a watch does when its output is read too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    CatchUp,
    Drop,
    Latest,
}

impl From<Policy> for LagPolicy {
    fn from(policy: Policy) -> LagPolicy {
        match policy {
            Policy::CatchUp => LagPolicy::CatchUp,
            Policy::Drop => LagPolicy::Drop,
            Policy::Latest => LagPolicy::Latest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        selection: Selection,
    }

    fn filter(words: &[&str]) -> Filter {
        let line = Line::try_parse_from(std::iter::once("test").chain(words.iter().copied())).unwrap();
        line.selection.filter().unwrap()
    }

    #[test]
    fn the_four_shapes_of_the_original_and_the_literal_star() {
        assert_eq!(filter(&[]), Filter::everything());
        assert_eq!(filter(&["*", "*"]), Filter::everything());
        assert_eq!(filter(&["g"]), Filter::group("g"));
        assert_eq!(filter(&["g", "*"]), Filter::group("g"));
        assert_eq!(filter(&["*", "k"]), Filter::key_name("k"));
        assert_eq!(filter(&["g", "k"]), Filter::key("g", "k"));
        assert_eq!(filter(&["", ""]), Filter::key("", ""));
        assert_eq!(filter(&["*", "*", "--literal"]), Filter::key("*", "*"));
    }

    #[test]
    fn prefixes_and_kinds() {
        assert_eq!(filter(&["--group-prefix", "a"]), Filter::group_prefix("a"));
        assert_eq!(filter(&["g", "--key-prefix", "a"]), Filter::key_prefix("g", "a"));
        assert_eq!(
            filter(&["--kind", "delete_group", "--kind", "touch"]),
            Filter::everything().kinds([Kind::DeleteGroup, Kind::Touch])
        );
    }

    #[test]
    fn a_position_is_a_revision_or_a_cursor() {
        assert_eq!("7".parse::<Position>().ok(), Some(Position::Revision(Revision::new(7))));
        assert!(matches!("k3v9x2mq-4fz8ab-7".parse(), Ok(Position::Cursor(_))));
        assert!("k3v9x2mq".parse::<Position>().is_err());
        assert!("-7".parse::<Position>().is_err());
        assert_eq!("start".parse().ok(), Some(Beginning(ConsumerStart::Beginning)));
        assert_eq!("7".parse().ok(), Some(Beginning(ConsumerStart::After(Revision::new(7)))));
        assert!("soon".parse::<Beginning>().is_err());
    }
}
