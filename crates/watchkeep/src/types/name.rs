//! Names: what a group, a key and a namespace may be, and prefixes as ranges.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

use super::error::{Reason, Result};
use super::limits::{CONSUMER_NAME, Limits, MAX_CONTENT_TYPE, MAX_LABEL, NAMESPACE};

/// What stands between a namespace and the rest of a group's name.
pub(crate) const SEPARATOR: char = ':';

impl Limits {
    pub(crate) fn check_group(&self, group: &str) -> Result<()> {
        check("group", group.len(), self.group)
    }

    pub(crate) fn check_key(&self, key: &str) -> Result<()> {
        check("key", key.len(), self.key)
    }

    pub(crate) fn check_value(&self, value: &[u8]) -> Result<()> {
        check("value", value.len(), self.value)
    }
}

pub(crate) fn check_content_type(content_type: &str) -> Result<()> {
    check_fixed("content type", content_type.len(), MAX_CONTENT_TYPE)
}

/// `what` is what the label is for.
pub(crate) fn check_label(what: &'static str, label: &str) -> Result<()> {
    check_fixed(what, label.len(), MAX_LABEL)
}

/// Of a limit that no option raises.
fn check_fixed(what: &'static str, len: usize, limit: usize) -> Result<()> {
    if len > limit { Err(Reason::TooLong { what, len, limit }.into()) } else { Ok(()) }
}

fn check(what: &'static str, len: usize, limit: usize) -> Result<()> {
    if len > limit { Err(Reason::TooLarge { what, len, limit }.into()) } else { Ok(()) }
}

/// The namespace of a group: the part of its name before the first `:`, or none.
pub(crate) fn namespace_of(group: &str) -> Option<&str> {
    group.split_once(SEPARATOR).map(|(namespace, _)| namespace)
}

/// What a handle sees: the whole store, or the groups of one namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// `name:`, or nothing for the whole store.
    prefix: Arc<str>,
}

impl Scope {
    pub(crate) fn namespace(name: &str) -> Result<Scope> {
        let fits = |char: char| char.is_ascii_alphanumeric() || char == '-';
        if name.is_empty() || name.len() > NAMESPACE || !name.chars().all(fits) {
            return Err(Reason::BadNamespace { name: name.to_owned() }.into());
        }
        Ok(Scope { prefix: format!("{name}{SEPARATOR}").into() })
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.prefix.is_empty()
    }

    /// The namespace's name, or none for the whole store.
    pub(crate) fn name(&self) -> Option<&str> {
        self.prefix.strip_suffix(SEPARATOR)
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The name of a group, or a prefix of such names, as it stands in the file.
    pub(crate) fn full(&self, group: &str) -> String {
        let mut full = String::with_capacity(self.prefix.len() + group.len());
        full.push_str(&self.prefix);
        full.push_str(group);
        full
    }

    /// The same, without a copy where the handle sees the whole store.
    pub(crate) fn name_of<'n>(&self, group: impl Into<Cow<'n, str>>) -> Cow<'n, str> {
        let group = group.into();
        if self.is_whole() { group } else { self.full(&group).into() }
    }

    /// The groups whose name starts so, under the names that stand in the file.
    pub(crate) fn groups(&self, prefix: &str) -> NameRange {
        NameRange::prefix(&self.full(prefix))
    }

    /// The name of a consumer as it stands in the file: that of a new one has no `:`, so it belongs to one namespace
    /// or to none.
    pub(crate) fn consumer(&self, name: &str) -> Result<String> {
        if !is_word(name) {
            return Err(Reason::BadConsumer { name: name.to_owned() }.into());
        }
        Ok(self.full(name))
    }

    /// The name of a client that numbers its batches, as it stands in the file.
    pub(crate) fn client(&self, name: &str) -> Result<String> {
        if !is_word(name) {
            return Err(Reason::BadClient { name: name.to_owned() }.into());
        }
        Ok(self.full(name))
    }

    /// The name of a group as this handle knows it.
    pub(crate) fn local<'a>(&self, group: &'a str) -> &'a str {
        group.strip_prefix(&*self.prefix).unwrap_or(group)
    }
}

/// Letters, digits, hyphens, dots and underscores, as many as a name may have.
fn is_word(name: &str) -> bool {
    let fits = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    !name.is_empty() && name.len() <= CONSUMER_NAME && name.chars().all(fits)
}

/// The first string after all that start with `prefix`, in byte order; none when there is no such string.
///
/// It comes from the last scalar that can be raised, so that it is text itself.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if let Some(raised) = raise(last) {
            end.push(raised);
            return Some(end);
        }
    }
    None
}

fn raise(char: char) -> Option<char> {
    match char {
        char::MAX => None,
        '\u{d7ff}' => Some('\u{e000}'),
        _ => char::from_u32(u32::from(char) + 1),
    }
}

/// A range of names in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameRange {
    pub(crate) from: Bound<String>,
    /// Exclusive; none is the end of all names.
    pub(crate) to: Option<String>,
}

impl NameRange {
    pub(crate) fn prefix(prefix: &str) -> NameRange {
        NameRange { from: Bound::Included(prefix.to_owned()), to: prefix_end(prefix) }
    }

    /// One name alone.
    pub(crate) fn exactly(name: &str) -> NameRange {
        NameRange { from: Bound::Included(name.to_owned()), to: Some(format!("{name}\0")) }
    }

    /// The lower bound's text.
    pub(crate) fn lower(&self) -> &str {
        match &self.from {
            Bound::Included(from) | Bound::Excluded(from) => from,
            Bound::Unbounded => "",
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        let begun = match &self.from {
            Bound::Included(from) => from.as_str() <= name,
            Bound::Excluded(from) => from.as_str() < name,
            Bound::Unbounded => true,
        };
        begun && self.ends_after(name)
    }

    fn ends_after(&self, name: &str) -> bool {
        self.to.as_deref().is_none_or(|to| name < to)
    }

    /// The same names in ranges that neither overlap nor touch, in order. Each of those given begins with a name.
    pub(crate) fn union(mut ranges: Vec<NameRange>) -> Vec<NameRange> {
        ranges.sort_unstable_by(|a, b| a.lower().cmp(b.lower()));
        let mut apart: Vec<NameRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match apart.last_mut() {
                Some(last) if last.to.as_deref().is_none_or(|to| range.lower() <= to) => {
                    if range.to.as_deref().is_none_or(|to| last.ends_before(to)) {
                        last.to = range.to;
                    }
                }
                _ => apart.push(range),
            }
        }
        apart
    }

    fn ends_before(&self, name: &str) -> bool {
        self.to.as_deref().is_some_and(|to| to < name)
    }

    /// What of ranges that are in order comes after `name`.
    pub(crate) fn rest(ranges: Vec<NameRange>, name: Option<&str>) -> impl Iterator<Item = NameRange> {
        let left = move |range: &NameRange| name.is_none_or(|name| range.ends_after(name));
        ranges.into_iter().filter(left).map(move |range| range.after(name))
    }

    /// What of the range comes after `name`.
    pub(crate) fn after(self, name: Option<&str>) -> NameRange {
        match name {
            Some(name) if !matches!(&self.from, Bound::Included(from) if name < from.as_str()) => {
                NameRange { from: Bound::Excluded(name.to_owned()), ..self }
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_last_scalar_raised() {
        let end = |prefix: &str| prefix_end(prefix);
        assert_eq!(end("a").as_deref(), Some("b"));
        assert_eq!(end("a\u{7f}").as_deref(), Some("a\u{80}"));
        assert_eq!(end("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(end(&format!("a{}", char::MAX)).as_deref(), Some("b"));
        assert_eq!(end(&char::MAX.to_string()), None);
        assert_eq!(end(""), None);
    }

    #[test]
    fn a_scope_adds_and_takes_away_its_prefix() -> Result<()> {
        let scope = Scope::namespace("tenant-42")?;
        assert_eq!(scope.full("config"), "tenant-42:config");
        assert_eq!(scope.local("tenant-42:config"), "config");
        assert_eq!(scope.name(), Some("tenant-42"));
        for bad in ["", "a:b", "a b", "ä", "*", "a_b", &"a".repeat(129)] {
            assert!(Scope::namespace(bad).is_err(), "{bad:?} was taken");
        }
        assert_eq!(scope.consumer("in_dex-1.b")?, "tenant-42:in_dex-1.b");
        for bad in ["", "a:b", "a b", "ä", "*", "a/b", &"a".repeat(129)] {
            assert!(scope.consumer(bad).is_err(), "{bad:?} was taken");
        }
        Ok(())
    }

    #[test]
    fn a_union_of_ranges_holds_each_name_once() {
        const NAMES: [&str; 8] = ["", "a", "a\0", "ab", "abc", "b", "ba", "\u{10ffff}"];
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let range = |random: &mut fastrand::Rng| {
                let name = random.choice(NAMES).expect("there are names");
                if random.bool() { NameRange::prefix(name) } else { NameRange::exactly(name) }
            };
            let ranges: Vec<_> = (0..random.usize(..5)).map(|_| range(&mut random)).collect();
            let apart = NameRange::union(ranges.clone());
            let after = random.choice(NAMES).filter(|_| random.bool());
            for name in NAMES {
                let times = |ranges: &[NameRange]| ranges.iter().filter(|range| range.contains(name)).count();
                assert_eq!(times(&apart), times(&ranges).min(1), "{name:?} in {ranges:?}");
                let rest: Vec<_> = NameRange::rest(apart.clone(), after).collect();
                let left = after.is_none_or(|after| name > after);
                assert_eq!(
                    times(&rest) == 1,
                    left && times(&apart) == 1,
                    "{name:?} after {after:?} in {apart:?}"
                );
            }
        }
    }
}
