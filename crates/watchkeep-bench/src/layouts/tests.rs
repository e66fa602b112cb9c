use super::*;
use crate::data::Name;

fn store(folder: &tempfile::TempDir, layout: &str) -> Result<Store> {
    let layout: Layout = layout.parse()?;
    Ok(Store {
        path: folder.path().join(format!("{layout}.db")),
        layout,
        page_size: 4096,
        cache_mib: None,
        wal_autocheckpoint: 1_000,
        sql: Sql::of(layout),
    })
}

fn name(number: usize) -> Name {
    Name { group: format!("grp-{:03}", number % 2), key: format!("key-{number:04}") }
}

/// All that a store gives back: pages of entries and of keys, each value, and what lies apart.
fn contents(store: &Store) -> Result<(String, i64, i64)> {
    let (reader, mut text) = (store.reader()?, String::new());
    for group in ["grp-000", "grp-001"] {
        for after in ["", "key-0300"] {
            writeln!(text, "{:?}\n{:?}", reader.entries(group, after)?, reader.keys(group, after)?)?;
        }
    }
    for number in 0..=600 {
        writeln!(text, "{:?}", reader.get(&name(number))?)?;
    }
    let conn = rusqlite::Connection::open(&store.path)?;
    let mut groups = conn.prepare("SELECT name, keys, bytes FROM groups")?;
    let mut rows = groups.query([])?;
    while let Some(row) = rows.next()? {
        writeln!(text, "{} {} {}", row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)?;
    }
    let apart = conn.query_row("SELECT count(*) FROM large", [], |row| row.get(0))?;
    let orphans = "SELECT count(*) FROM large WHERE id NOT IN (SELECT revision FROM entries)";
    let orphans: i64 = conn.query_row(orphans, [], |row| row.get(0))?;
    assert_eq!(orphans, 0, "{}", store.layout);
    let swept = "SELECT count(*) FROM entries WHERE group_id = 1";
    Ok((text, apart, conn.query_row(swept, [], |row| row.get(0))?))
}

#[test]
fn all_layouts_give_back_the_same_entries_in_the_same_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut expected = None;
    for layout in ["rowid", "clustered", "apart-99", "apart-100", "apart-1000", "apart-1000-join"] {
        let store = store(&folder, layout)?;
        store.create(["grp-000", "grp-001"].into_iter().map(str::to_owned))?;
        let mut writer = store.writer()?;
        let mut names: Vec<Name> = (0..600).map(name).collect();
        fastrand::Rng::with_seed(1).shuffle(&mut names);
        // The second time, each becomes of another size.
        for _ in 0..2 {
            writer.set(names.iter(), |text, revision| Values::Mixed.text(text, revision))?;
        }
        let (text, apart, _) = contents(&store)?;
        let sizes = |size: usize| text.matches(&format!("bytes: {size},")).count();
        // A page holds 256 of 300 keys; the second begins after the 151st.
        assert!(sizes(100) > 600 && sizes(1_000) > 40 && sizes(20_000) > 0, "{layout}");
        if let Layout::Apart { above, .. } = store.layout {
            let is_apart = |revision: &i64| {
                let mut text = String::new();
                Values::Mixed.text(&mut text, *revision).is_ok() && text.len() > above
            };
            assert_eq!(apart, i64::try_from((601..=1200).filter(is_apart).count())?, "{layout}");
        }
        assert_eq!((writer.sweep("grp-000", 299)?, writer.sweep("grp-000", 299)?), (299, 1), "{layout}");
        let (rest, _, swept) = contents(&store)?;
        assert_eq!(swept, 0, "{layout}");
        let (first, first_rest) = expected.get_or_insert_with(|| (text.clone(), rest.clone()));
        assert!(*first == text && *first_rest == rest, "{layout} gives back something else");
    }
    Ok(())
}

#[test]
fn a_small_run_has_all_metrics() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = store(&folder, "apart-500")?;
    let (names, mut seen) = (Names::of(1_000), Vec::new());
    cells::all(
        (&store, &names, Values::Mixed),
        (false, Duration::from_millis(1)),
        &mut |metrics, _, step| {
            let found = step()?;
            assert_eq!(found.len(), metrics.len());
            seen.extend(metrics.iter().copied().zip(found));
            Ok(())
        },
    )?;
    let missing: Vec<_> =
        METRICS.iter().filter(|metric| !seen.iter().any(|(seen, _)| seen == *metric)).collect();
    assert_eq!(
        missing,
        ["load-sorted", "bytes-sorted", "scan-sorted", "cold-scan-sorted"].iter().collect::<Vec<_>>()
    );
    assert!(seen.iter().all(|(_, figure)| figure.clock > 0.0), "{seen:?}");
    Ok(())
}
