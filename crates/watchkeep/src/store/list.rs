//! Iterators that read in pages, each page its own moment, so that nothing is held between them.

use std::collections::VecDeque;
use std::fmt;

use crate::types::entry::{Entry, ListOptions};
use crate::types::error::Result;
use crate::types::limits::PAGE_ENTRIES;

use super::view::View;

/// The entries of a group, in the order of their keys; see [`Store::entries`](crate::Store::entries).
///
/// An error ends it.
pub struct Entries<'a> {
    view: View<'a>,
    group: String,
    options: ListOptions,
    page: VecDeque<Entry>,
    done: bool,
}

impl<'a> Entries<'a> {
    pub(super) fn new(view: View<'a>, group: &str, options: ListOptions) -> Entries<'a> {
        Entries { view, group: group.to_owned(), options, page: VecDeque::new(), done: false }
    }

    fn fill(&mut self) -> Result<()> {
        let page = self.view.page(&self.group, self.options.clone())?;
        self.done = page.next.is_none();
        self.options.after = page.next;
        if let Some(limit) = &mut self.options.limit {
            *limit -= page.entries.len();
            self.done |= *limit == 0;
        }
        self.page = page.entries.into();
        Ok(())
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        while self.page.is_empty() && !self.done {
            if let Err(error) = self.fill() {
                self.done = true;
                return Some(Err(error));
            }
        }
        self.page.pop_front().map(Ok)
    }
}

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("group", &self.group).finish_non_exhaustive()
    }
}

/// The names of groups, in byte order; see [`Store::groups`](crate::Store::groups).
///
/// An error ends it.
pub struct Groups<'a> {
    view: View<'a>,
    prefix: String,
    after: Option<String>,
    page: VecDeque<String>,
    done: bool,
}

impl<'a> Groups<'a> {
    pub(super) fn new(view: View<'a>, prefix: &str) -> Groups<'a> {
        Groups { view, prefix: prefix.to_owned(), after: None, page: VecDeque::new(), done: false }
    }

    fn fill(&mut self) -> Result<()> {
        let page = self.view.groups_page(&self.prefix, self.after.as_deref(), PAGE_ENTRIES)?;
        self.done = page.next.is_none();
        self.after = page.next;
        self.page = page.groups.into();
        Ok(())
    }
}

impl Iterator for Groups<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        if self.page.is_empty()
            && !self.done
            && let Err(error) = self.fill()
        {
            self.done = true;
            return Some(Err(error));
        }
        self.page.pop_front().map(Ok)
    }
}

impl fmt::Debug for Groups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
