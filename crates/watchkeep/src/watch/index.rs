//! Which watchers may want an event: by hash and by the lengths of prefixes, so that an event costs what its
//! matching watchers cost, not what all watchers cost.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::types::filter::{Filter, Part, Target};

/// One of the targets of a watcher.
#[derive(Debug)]
struct Listed<T> {
    /// The watcher's number, and which of its targets it is.
    id: (u64, usize),
    /// The watcher has others.
    is_one_of_many: bool,
    watcher: T,
}

/// Watchers under one name. Removal moves the last one into the gap, and tells the index so.
#[derive(Debug)]
struct List<T>(Vec<Listed<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        List(Vec::new())
    }
}

/// Things under prefixes, found by the names that start so.
#[derive(Debug)]
struct Prefixes<V>(BTreeMap<usize, HashMap<Box<str>, V>>);

impl<V> Default for Prefixes<V> {
    fn default() -> Self {
        Prefixes(BTreeMap::new())
    }
}

impl<V: Default> Prefixes<V> {
    fn at(&mut self, prefix: &str) -> &mut V {
        self.0.entry(prefix.len()).or_default().entry(prefix.into()).or_default()
    }

    fn matching<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a V> {
        let of_len = move |(len, of_len): (&usize, &'a HashMap<Box<str>, V>)| of_len.get(name.get(..*len)?);
        self.0.range(..=name.len()).filter_map(of_len)
    }

    /// Changes what is under a prefix, and forgets it when told that it is empty.
    fn change(&mut self, prefix: &str, change: impl FnOnce(&mut V) -> bool) {
        let Some(of_len) = self.0.get_mut(&prefix.len()) else { return };
        change_in(of_len, prefix, change);
        if of_len.is_empty() {
            self.0.remove(&prefix.len());
        }
    }
}

fn change_in<V>(map: &mut HashMap<Box<str>, V>, name: &str, change: impl FnOnce(&mut V) -> bool) {
    if map.get_mut(name).is_some_and(change) {
        map.remove(name);
    }
}

/// Those who watch one group, or keys in it.
#[derive(Debug)]
struct InGroup<T> {
    whole: List<T>,
    keys: HashMap<Box<str>, List<T>>,
    prefixes: Prefixes<List<T>>,
}

impl<T> Default for InGroup<T> {
    fn default() -> Self {
        InGroup { whole: List::default(), keys: HashMap::new(), prefixes: Prefixes::default() }
    }
}

fn in_group<T>(
    groups: &mut HashMap<Box<str>, InGroup<T>>,
    group: &str,
    change: impl FnOnce(&mut InGroup<T>),
) {
    change_in(groups, group, |watchers| {
        change(watchers);
        watchers.whole.0.is_empty() && watchers.keys.is_empty() && watchers.prefixes.0.is_empty()
    });
}

/// All watchers, by what they watch.
#[derive(Debug)]
pub(super) struct Index<T> {
    /// Where in its list each target of a watcher stands.
    places: HashMap<(u64, usize), usize>,
    wide: Prefixes<List<T>>,
    groups: HashMap<Box<str>, InGroup<T>>,
    /// Key names, by the prefix of the groups in which they are watched.
    names: Prefixes<HashMap<Box<str>, List<T>>>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        let (wide, names) = (Prefixes::default(), Prefixes::default());
        Index { places: HashMap::new(), wide, groups: HashMap::new(), names }
    }
}

/// What a filter is about, each target once: parts that differ in the rest only stand side by side.
fn targets(filter: &Filter) -> impl Iterator<Item = &Target> {
    filter.parts().chunk_by(|a, b| a.target == b.target).filter_map(<[Part]>::first).map(|part| &part.target)
}

impl<T> Index<T> {
    /// Adds a watcher under a number of its own.
    pub(super) fn insert(&mut self, id: u64, filter: &Filter, watcher: T)
    where
        T: Clone,
    {
        let is_one_of_many = targets(filter).nth(1).is_some();
        for (target, which) in targets(filter).zip(0..) {
            let list = self.list(target);
            let place = list.0.len();
            list.0.push(Listed { id: (id, which), is_one_of_many, watcher: watcher.clone() });
            self.places.insert((id, which), place);
        }
    }

    fn list(&mut self, target: &Target) -> &mut List<T> {
        match target {
            Target::Groups { prefix } => self.wide.at(prefix),
            Target::Group(group) => &mut self.groups.entry(group.clone()).or_default().whole,
            Target::Key { group, key } => {
                self.groups.entry(group.clone()).or_default().keys.entry(key.clone()).or_default()
            }
            Target::KeyPrefix { group, prefix } => {
                self.groups.entry(group.clone()).or_default().prefixes.at(prefix)
            }
            Target::KeyName { groups, key } => self.names.at(groups).entry(key.clone()).or_default(),
        }
    }

    /// Removes a watcher, given the filter that it was added with.
    pub(super) fn remove(&mut self, id: u64, filter: &Filter) {
        for (target, which) in targets(filter).zip(0..) {
            self.remove_target((id, which), target);
        }
    }

    fn remove_target(&mut self, id: (u64, usize), target: &Target) {
        let Some(place) = self.places.remove(&id) else { return };
        let places = &mut self.places;
        let mut out = |list: &mut List<T>| {
            if place < list.0.len() {
                list.0.swap_remove(place);
                if let Some(moved) = list.0.get(place) {
                    places.insert(moved.id, place);
                }
            }
            list.0.is_empty()
        };
        match target {
            Target::Groups { prefix } => self.wide.change(prefix, out),
            Target::KeyName { groups, key } => self.names.change(groups, |names| {
                change_in(names, key, out);
                names.is_empty()
            }),
            Target::Group(group) => in_group(&mut self.groups, group, |watchers| {
                out(&mut watchers.whole);
            }),
            Target::Key { group, key } => {
                in_group(&mut self.groups, group, |watchers| change_in(&mut watchers.keys, key, out))
            }
            Target::KeyPrefix { group, prefix } => {
                in_group(&mut self.groups, group, |watchers| watchers.prefixes.change(prefix, out));
            }
        }
    }

    /// Hands on every watcher that a change of this key, or of a whole group, may concern: all that want it, and
    /// few others; each once.
    pub(super) fn candidates(&self, group: &str, key: Option<&str>, mut each: impl FnMut(&T)) {
        // It takes no memory while no watcher with many targets is found.
        let mut seen = HashSet::new();
        let mut all = |list: &List<T>| {
            for listed in &list.0 {
                if !listed.is_one_of_many || seen.insert(listed.id.0) {
                    each(&listed.watcher);
                }
            }
        };
        self.wide.matching(group).for_each(&mut all);
        let in_group = self.groups.get(group);
        if let Some(watchers) = in_group {
            all(&watchers.whole);
        }
        match key {
            Some(key) => {
                if let Some(watchers) = in_group {
                    watchers.keys.get(key).into_iter().for_each(&mut all);
                    watchers.prefixes.matching(key).for_each(&mut all);
                }
                self.names.matching(group).filter_map(|names| names.get(key)).for_each(&mut all);
            }
            None => {
                if let Some(watchers) = in_group {
                    watchers.keys.values().for_each(&mut all);
                    watchers.prefixes.0.values().flat_map(HashMap::values).for_each(&mut all);
                }
                self.names.matching(group).flat_map(HashMap::values).for_each(&mut all);
            }
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.wide.0.is_empty() && self.groups.is_empty() && self.names.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::event::{Change, Kind};
    use crate::types::revision::Revision;

    const NAMES: [&str; 8] = ["", "a", "ab", "abc", "b", "ä", "äb", "*"];

    fn filter(random: &mut fastrand::Rng) -> Filter {
        match random.usize(..4) {
            0 => Filter::any((0..random.usize(..6)).map(|_| part(random)).collect::<Vec<_>>()),
            _ => part(random),
        }
    }

    fn part(random: &mut fastrand::Rng) -> Filter {
        let mut name = || *random.choice(NAMES.iter()).expect("there are names");
        let (group, key) = (name(), name());
        let filter = match random.u8(..6) {
            0 => Filter::everything(),
            1 => Filter::group(group),
            2 => Filter::group_prefix(group),
            3 => Filter::key(group, key),
            4 => Filter::key_prefix(group, key),
            _ => Filter::key_name(key).within(|_| group.to_owned()),
        };
        match random.u8(..4) {
            0 => filter.without_group_deletions(),
            1 => filter.kinds([Kind::Set]),
            _ => filter,
        }
    }

    fn change(group: &str, key: Option<&str>) -> Change {
        let kind = if key.is_some() { Kind::Set } else { Kind::DeleteGroup };
        let (group, key) = (group.into(), key.map(Into::into));
        Change { kind, group, key, ..Change::sample(Revision::new(1)) }
    }

    /// Whatever comes and goes, the index finds exactly whom a scan over all watchers finds.
    #[test]
    fn finds_whom_a_scan_finds() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut index, mut all) = (Index::default(), Vec::new());
            for id in 0..300_u64 {
                if random.u8(..3) == 0 && !all.is_empty() {
                    let (gone, filter): (u64, Filter) = all.swap_remove(random.usize(..all.len()));
                    index.remove(gone, &filter);
                } else {
                    let filter = filter(&mut random);
                    index.insert(id, &filter, (id, filter.clone()));
                    all.push((id, filter));
                }
                let group = *random.choice(NAMES.iter()).expect("there are names");
                let key = random.choice(NAMES.iter()).filter(|_| random.bool()).copied();
                let change = change(group, key);
                let mut found = Vec::new();
                index.candidates(group, key, |(id, filter)| {
                    if filter.matches_change(&change) {
                        found.push(*id);
                    }
                });
                let mut scanned: Vec<u64> = all
                    .iter()
                    .filter(|(_, filter)| filter.matches_change(&change))
                    .map(|(id, _)| *id)
                    .collect();
                found.sort_unstable();
                scanned.sort_unstable();
                assert_eq!(found, scanned, "seed {seed}, group {group:?}, key {key:?}");
            }
            for (id, filter) in all {
                index.remove(id, &filter);
            }
            assert!(index.is_empty(), "seed {seed} left something behind");
        }
    }
}
