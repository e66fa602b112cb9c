//! Files that were damaged. Longer runs: `cargo run --release -p watchkeep-testkit --bin faults -- flips wal`.

use watchkeep::{ErrorKind, Filter, Options, Revision};
use watchkeep_faultdisk::Image;
use watchkeep_testkit::faults::bytes::{Sound, cut_log, exchange_log, flip_file, flip_log};
use watchkeep_testkit::faults::{FILE, Row, scratch};
use watchkeep_testkit::size::scaled;
use watchkeep_testkit::surface::Fault;

fn clean(row: &Row) {
    assert_eq!(row.problem(), None);
}

#[test]
fn a_bit_that_flips_never_becomes_an_event_and_no_entry_that_check_does_not_find() -> Result<(), Fault> {
    let mut all = Row::default();
    for seed in 1..=scaled(6) {
        all.add(flip_file(&Sound::new(seed)?, seed, 50)?);
    }
    clean(&all);
    all.print("flips");
    assert_eq!((all.rounds, all.count("log-shortened-unfound")), (scaled(300), 0), "{all}");
    assert!(
        all.count("wrong-by-get") > 0,
        "entries have no checksum: without any, the flips hit nothing: {all}"
    );
    Ok(())
}

#[test]
fn a_bit_that_flips_in_the_write_ahead_log_takes_whole_transactions_from_the_end() -> Result<(), Fault> {
    let mut all = Row::default();
    for seed in 1..=scaled(1) {
        all.add(flip_log(&Sound::new(seed)?, seed, 100)?);
    }
    clean(&all);
    assert!(all.count("lost") > 0, "{all}");
    Ok(())
}

#[test]
fn a_write_ahead_log_that_is_cut_short_takes_whole_transactions_from_the_end() -> Result<(), Fault> {
    for seed in 1..=scaled(1) {
        let row = cut_log(&Sound::new(seed)?, 120)?;
        clean(&row);
        assert!(row.count("lost") > 60, "{row}");
    }
    Ok(())
}

#[test]
fn the_write_ahead_log_of_another_store_is_found() -> Result<(), Fault> {
    let mut all = Row::default();
    let sounds = (1..=8).map(Sound::new).collect::<Result<Vec<_>, _>>()?;
    for sound in &sounds {
        for other in sounds.iter().filter(|other| other.closed != sound.closed) {
            all.add(exchange_log(sound, other)?);
        }
    }
    clean(&all);
    assert_eq!(all.count("found-by-check"), all.rounds, "{all}");

    // With a page that says whose it is, the file is the other store from then on: what is told is the other's.
    let (mut all, young) = (Row::default(), Sound::young(9)?);
    for sound in &sounds {
        all.add(exchange_log(sound, &young)?);
    }
    clean(&all);
    assert_eq!(all.count("became-the-other"), all.rounds, "{all}");
    Ok(())
}

/// How a store of these bytes is opened and read, by the kind of error; none when there is none.
fn kind_of(bytes: Vec<u8>) -> Result<Option<ErrorKind>, Fault> {
    let folder = scratch()?;
    Image { files: [(FILE.to_owned(), bytes)].into() }.write_to(folder.path())?;
    let store = match Options::new().create(false).ballast(false).open(folder.path().join(FILE)) {
        Ok(store) => store,
        Err(error) => return Ok(Some(error.kind())),
    };
    let error = store.history(Filter::everything(), Revision::ZERO).find_map(Result::err);
    Ok(error.map(|error| error.kind()))
}

#[test]
fn garbage_and_a_file_that_is_cut_off_are_told_by_kind() -> Result<(), Fault> {
    let sound = Sound::new(1)?;
    let file = sound.closed.files.get(FILE).ok_or("no file")?.clone();
    assert_eq!(kind_of(file.clone())?, None);
    for len in [0, 1, 15, 16, 50, 99, 100, 511] {
        let kind = kind_of(file.iter().copied().take(len).collect())?;
        assert!(matches!(kind, Some(ErrorKind::ForeignFile | ErrorKind::Corrupt)), "{len} bytes: {kind:?}");
    }
    for pages in 1..file.len() / 4096 {
        let kind = kind_of(file.iter().copied().take(pages * 4096).collect())?;
        assert_eq!(kind, Some(ErrorKind::Corrupt), "{pages} pages");
    }
    let garbage = (0..file.len()).map(|at| u8::try_from(at * 7 % 251).unwrap_or(0)).collect();
    assert_eq!(kind_of(garbage)?, Some(ErrorKind::ForeignFile));
    Ok(())
}
