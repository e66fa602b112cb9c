//! Pages of the log.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::http::StatusCode;
use watchkeep::{Cursor, Durability, Error, ErrorKind, Filter, Revision};

use super::{Gate, Position};
use crate::change::Change;
use crate::limits::CHANGES;
use crate::problem::Problem;
use crate::turns::Turn;

/// What one does whose position is refused.
const READ: &str = "read what is there first";

/// Which part of the log is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) filter: Filter,
    pub(crate) exclude_origin: Option<String>,
    /// None: from the oldest that is kept.
    pub(crate) after: Option<Position>,
    /// None: to the end.
    pub(crate) upto: Option<Position>,
    /// How many rows are looked at, at the most.
    pub(crate) rows: usize,
}

/// A page of it.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) changes: Vec<Arc<Change>>,
    /// Where it begins.
    pub(crate) after: Position,
    /// Where to go on.
    pub(crate) next: Position,
    /// The oldest position that a page may begin at.
    pub(crate) floor: Position,
    /// The end of the log.
    pub(crate) end: Position,
    /// It ended before what was asked for did.
    pub(crate) is_full: bool,
}

/// A page for a client that fell out of its ring, with its turn.
pub(crate) struct Part {
    pub(crate) changes: VecDeque<Arc<Change>>,
    /// Everything up to this was looked at.
    pub(crate) next: Revision,
    _turn: Turn,
}

impl Gate {
    /// The namespace that all names are in; empty for the whole store.
    pub(crate) fn namespace(&self) -> &str {
        self.store.store().namespace().unwrap_or_default()
    }

    /// Whether what was read once is never lost: not in a power cut either.
    pub(crate) fn is_durable(&self) -> bool {
        self.store.store().durability() == Durability::Full
    }

    /// A page of the log.
    ///
    /// # Errors
    ///
    /// 410 when what follows the position is trimmed; 409 when the position is not one of this store, or not yet.
    pub(crate) async fn changes(&self, asked: &Asked) -> Result<Page, Problem> {
        let after = asked.after.as_ref().map(Position::cursor).transpose()?;
        let upto = asked.upto.as_ref().map(Position::cursor).transpose()?;
        let mut filter = asked.filter.clone();
        if let Some(origin) = &asked.exclude_origin {
            filter = filter.exclude_origin(origin);
        }
        if let Some(upto) = upto {
            self.store.revision_of(upto).await.map_err(|error| self.refusal(error))?;
        }
        let page =
            self.store.changes(filter, after, asked.rows).await.map_err(|error| self.refusal(error))?;
        let start = after.unwrap_or(page.floor);
        let end = upto.unwrap_or(page.end);
        if end.revision() < start.revision() {
            return Err(match after {
                Some(_) => Problem::bad("the position in upto= comes before that in after=; swap them"),
                None => trimmed("what comes before upto= is trimmed", &page.floor),
            });
        }
        let within = page.events.into_iter().take_while(|event| event.revision() <= end.revision());
        Ok(Page {
            changes: within.map(|event| self.change(event)).collect(),
            after: self.position(start.revision()),
            next: self.position(page.next.revision().min(end.revision())),
            floor: self.position(page.floor.revision()),
            end: self.position(page.end.revision()),
            is_full: page.next.revision() < end.revision(),
        })
    }

    /// What the log has after a revision, in turn with others.
    pub(crate) async fn part(&self, filter: Filter, after: Revision) -> Result<Part, Error> {
        let turn = self.streams.laggards.take().await?;
        let after = self.store.store().cursor(after);
        let page = self.store.changes(filter, Some(after), CHANGES).await?;
        let changes = page.events.into_iter().map(|event| self.change(event)).collect();
        Ok(Part { changes, next: page.next.revision(), _turn: turn })
    }

    /// What a request is told whose position was refused.
    fn refusal(&self, error: Error) -> Problem {
        match (error.kind(), error.lagged()) {
            (_, Some(lost)) => trimmed(&error.to_string(), &self.store.store().cursor(lost.to)),
            (ErrorKind::ForeignCursor, _) => foreign(READ),
            (ErrorKind::LostCursor, _) => lost(READ),
            _ => error.into(),
        }
    }
}

fn trimmed(what: &str, floor: &Cursor) -> Problem {
    let detail = format!("{what}; start again with what is there, or go on after {floor} without the rest");
    Problem::new(StatusCode::GONE, "trimmed", detail).with("floor", floor.to_string())
}

/// A position that another store gave; `advice` says what to do.
pub(crate) fn foreign(advice: &str) -> Problem {
    let detail = format!("the position is not one of this store; start again without it, or {advice}");
    Problem::new(StatusCode::CONFLICT, "foreign_cursor", detail)
}

/// A position of this store whose event is not in it.
pub(crate) fn lost(advice: &str) -> Problem {
    let detail = format!(
        "what the position stands for is not in this store: a power cut took it, or another copy of the file gave it; \
         start again without it, or {advice}"
    );
    Problem::new(StatusCode::CONFLICT, "lost_cursor", detail)
}
