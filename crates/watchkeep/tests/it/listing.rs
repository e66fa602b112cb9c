//! Listing: pages, iterators, counts; in byte order, however much there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::support::needs::needs;
use crate::support::numbers::number;
use crate::support::{Result, anywhere, fill};
use watchkeep::{ListOptions, Options, SetOptions, Store};

/// A name out of few characters, some of them awkward.
fn name(dice: &mut fastrand::Rng) -> String {
    let letters = ['a', 'b', 'A', '%', '\0', 'ä', '\u{d7ff}', '\u{10ffff}'];
    let len = dice.usize(..4);
    (0..len).filter_map(|_| dice.choice(letters)).collect()
}

fn keys(store: &Store, group: &str, options: ListOptions) -> Result<Vec<String>> {
    Ok(store
        .entries_with(group, options)
        .map(|entry| entry.map(|entry| entry.key))
        .collect::<std::result::Result<_, _>>()?)
}

#[test]
fn lists_and_pages_are_those_of_a_sorted_map_for_any_prefix_start_and_limit() -> Result {
    let store = anywhere()?;
    let mut dice = fastrand::Rng::with_seed(7);
    let names: Vec<_> = (0..900).map(|_| name(&mut dice)).collect();
    fill(&store, 900, |tx, n| tx.set("g", &names[n], "v"))?;
    let model: BTreeSet<_> = names.into_iter().collect();
    store.set("f", "zzz", "v")?;
    store.set("g\0", "zzz", "v")?;
    assert!(model.len() > 200, "only {}", model.len());
    for _ in 0..400 {
        let (prefix, after) = (name(&mut dice), Some(name(&mut dice)).filter(|_| dice.bool()));
        let limit = Some(dice.usize(..40)).filter(|_| dice.u8(..3) > 0);
        let mut options = ListOptions::new().prefix(prefix.clone());
        options = after.iter().fold(options, |options, after| options.after(after.clone()));
        options = limit.iter().fold(options, |options, limit| options.limit(*limit));
        let all: Vec<_> = model
            .iter()
            .filter(|key| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after))
            .cloned()
            .collect();
        let expected: Vec<_> = all.iter().take(limit.unwrap_or(usize::MAX)).cloned().collect();
        let what = format!("prefix {prefix:?}, after {after:?}, limit {limit:?}");
        assert_eq!(keys(&store, "g", options.clone())?, expected, "{what}");

        // Page by page it is the same, and the last page knows that it is the last.
        let (mut paged, mut options, mut pages) = (Vec::new(), options, 0);
        loop {
            let page = store.page("g", options.clone())?;
            assert!(page.entries.len() <= limit.unwrap_or(256).min(256), "{what}");
            paged.extend(page.entries.iter().map(|entry| entry.key.clone()));
            pages += 1;
            let Some(next) = page.next else { break };
            assert_eq!(Some(&next), paged.last(), "{what}");
            options = options.after(next);
            assert!(pages < 2_000, "{what}: it does not end");
        }
        assert_eq!(paged, if limit == Some(0) { Vec::new() } else { all }, "{what}");
    }
    Ok(())
}

#[test]
fn pages_without_values_tell_of_each_key_what_its_entry_does() -> Result {
    let store = anywhere()?;
    let mut dice = fastrand::Rng::with_seed(13);
    let entries: Vec<_> = (0..700)
        .map(|_| {
            let hour = SetOptions::new().ttl(Duration::from_secs(3_600)).content_type("a/b");
            let options = if dice.bool() { hour } else { SetOptions::new() };
            // Text and bytes; a character of two bytes counts as two.
            let value = if dice.bool() {
                "é".repeat(dice.usize(..9)).into_bytes()
            } else {
                vec![0xff; dice.usize(..9)]
            };
            (name(&mut dice), value, options)
        })
        .collect();
    fill(&store, 700, |tx, n| {
        let (key, value, options) = entries[n].clone();
        tx.set_with("g", &key, value, options)
    })?;
    // Larger together than what a page with values holds.
    for number in 0..5 {
        store.set("large", &format!("{number}"), vec![0; 400_000])?;
    }
    assert_eq!(store.keys_page("large", ListOptions::new())?.keys.len(), 5);
    for _ in 0..100 {
        let options =
            ListOptions::new().prefix(name(&mut dice)).after(name(&mut dice)).limit(dice.usize(..300));
        let (page, keys) = (store.page("g", options.clone())?, store.keys_page("g", options.clone())?);
        assert_eq!((page.next, page.revision), (keys.next, keys.revision), "{options:?}");
        assert_eq!(page.entries.len(), keys.keys.len(), "{options:?}");
        for (entry, key) in page.entries.iter().zip(&keys.keys) {
            assert_eq!(key.bytes, entry.value.len() as u64);
            assert_eq!((&key.key, key.revision, key.created), (&entry.key, entry.revision, entry.created));
            assert_eq!((key.updated, key.deadline), (entry.updated, entry.deadline));
            assert_eq!(key.content_type, entry.content_type);
        }
    }
    assert!(store.keys_page("none", ListOptions::new())?.keys.is_empty());
    Ok(())
}

#[test]
fn pages_of_groups_are_the_list_of_groups_in_parts_also_in_a_namespace() -> Result {
    let whole = anywhere()?;
    let scoped = whole.scoped("tenant")?;
    let mut dice = fastrand::Rng::with_seed(17);
    for store in [&whole, &scoped] {
        let names: Vec<_> = (0..300).map(|_| name(&mut dice)).collect();
        fill(store, 300, |tx, n| tx.set(&names[n], "k", "v"))?;
    }
    for store in [&whole, &scoped] {
        for _ in 0..50 {
            let (prefix, limit) = (name(&mut dice), dice.usize(1..300));
            let all: Vec<_> = store.groups(&prefix).collect::<std::result::Result<_, _>>()?;
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = store.groups_page(&prefix, after.as_deref(), limit)?;
                assert_eq!(page.revision, store.last_revision()?);
                assert!(page.groups.len() <= limit.min(256));
                paged.extend(page.groups);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(paged, all, "prefix {prefix:?}, limit {limit}");
        }
    }
    Ok(())
}

#[test]
fn counts_and_groups_are_those_of_a_sorted_map_for_any_prefix() -> Result {
    let store = anywhere()?;
    let mut dice = fastrand::Rng::with_seed(11);
    let mut model: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for _ in 0..1_500 {
        let (group, key) = (name(&mut dice), name(&mut dice));
        match dice.u8(..8) {
            0 => {
                let removed = model.remove(&group).map_or(0, |keys| keys.len());
                assert_eq!(store.delete_group(&group)?, removed as u64);
            }
            1 | 2 => {
                let there = model.get_mut(&group).is_some_and(|keys| keys.remove(&key));
                model.retain(|_, keys| !keys.is_empty());
                assert_eq!(store.delete(&group, &key)?, there);
            }
            _ => {
                store.set(&group, &key, "v")?;
                model.entry(group).or_default().insert(key);
            }
        }
    }
    for _ in 0..200 {
        let prefix = name(&mut dice);
        let matching: Vec<_> = model.iter().filter(|(group, _)| group.starts_with(&prefix)).collect();
        let groups: Vec<_> = store.groups(&prefix).collect::<std::result::Result<_, _>>()?;
        assert_eq!(
            groups,
            matching.iter().map(|(group, _)| group.as_str()).collect::<Vec<_>>(),
            "{prefix:?}"
        );
        let sum: usize = matching.iter().map(|(_, keys)| keys.len()).sum();
        assert_eq!(store.count_all(&prefix)?, sum as u64, "{prefix:?}");
        assert_eq!(store.count(&prefix)?, model.get(&prefix).map_or(0, BTreeSet::len) as u64);
    }
    let report = store.check()?;
    assert!(report.is_ok(), "{report:?}");
    Ok(())
}

#[test]
fn an_iterator_goes_on_while_others_write_and_sees_each_steady_key_once() -> Result {
    let store = anywhere()?;
    fill(&store, 1_000, |tx, n| tx.set("g", &format!("{n:04}"), "v"))?;
    let mut seen = Vec::new();
    for (number, entry) in store.entries("g").enumerate() {
        let entry = entry?;
        if !entry.key.contains('x') {
            seen.push(entry.key.clone());
        }
        if number % 50 == 0 {
            // Before, after, and what was just read.
            store.set("g", &format!("{:04}x", number), "v")?;
            store.set("g", &format!("{:04}x", 999 - number / 2), "v")?;
            store.set("g", &entry.key, "again")?;
        }
    }
    assert_eq!(seen, (0..1_000).map(|n| format!("{n:04}")).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn an_iterator_holds_no_read_transaction_so_that_the_log_of_writes_starts_again() -> Result {
    let folder = tempfile::tempdir()?;
    let store =
        Options::new().durability(watchkeep::Durability::Relaxed).open(folder.path().join("app.db"))?;
    store.transaction(|tx| (0..600).try_for_each(|n| tx.set("g", &format!("{n:04}"), "v")))?;
    let (mut entries, mut groups) = (store.entries("g"), store.groups(""));
    let mut history = store.history(watchkeep::Filter::everything(), watchkeep::Revision::ZERO);
    let mut watcher = store.watch("*", "*");
    assert!(entries.next().is_some() && groups.next().is_some() && history.next().is_some());
    for round in 0..30 {
        store.set("h", "k", vec![b'x'; 4 << 20])?;
        if round % 15 == 14 {
            crate::support::eventually("the store's thread moves it into the file", || {
                store.set("h", "small", "v")?;
                Ok(store.stats()?.wal_bytes < 160 << 20)
            })?;
        }
    }
    assert!(
        entries.next().is_some() && history.next().is_some() && crate::support::next(&mut watcher).is_ok()
    );
    Ok(())
}

#[test]
fn a_value_that_is_larger_than_a_page_comes_alone() -> Result {
    needs!(LargeTransactions);
    let store = anywhere()?;
    for number in 0..30 {
        store.set("g", &format!("{number:02}"), vec![b'x'; 100_000])?;
    }
    store.set("g", "15", vec![b'x'; 3 << 20])?;
    assert_eq!(keys(&store, "g", ListOptions::new())?.len(), 30);
    Ok(())
}

#[test]
fn a_page_is_of_one_moment_and_bounded_in_bytes() -> Result {
    let store = anywhere()?;
    for number in 0..30 {
        store.set("g", &format!("{number:02}"), vec![b'x'; 100_000])?;
    }
    let page = store.page("g", ListOptions::new())?;
    assert!((10..=12).contains(&page.entries.len()), "{} entries of 100,000 bytes", page.entries.len());
    assert_eq!(number(page.revision), 30);
    assert_eq!(keys(&store, "g", ListOptions::new())?.len(), 30);
    assert_eq!(store.page("g", ListOptions::new().limit(0))?.entries.len(), 0);
    assert_eq!(store.page("missing", ListOptions::new())?.next, None);
    Ok(())
}

#[test]
fn exactly_full_pages_lose_nothing_at_their_seams() -> Result {
    for number in [255_usize, 256, 257, 511, 512, 513] {
        let store = anywhere()?;
        fill(&store, number, |tx, n| {
            tx.set("g", &format!("{n:04}"), "v")?;
            tx.set(&format!("h{n:04}"), "k", "v")
        })?;
        assert_eq!(store.entries("g").count(), number);
        assert_eq!(store.groups("h").count(), number);
        assert_eq!(store.snapshot()?.entries("g").count(), number);
        assert_eq!(keys(&store, "g", ListOptions::new().limit(256))?.len(), number.min(256));
        assert_eq!(keys(&store, "g", ListOptions::new().limit(257))?.len(), number.min(257));
        let history = store.history(watchkeep::Filter::everything(), watchkeep::Revision::ZERO);
        assert_eq!(history.count(), number * 2);
    }
    Ok(())
}
