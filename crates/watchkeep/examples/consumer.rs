//! A named consumer that keeps a running total: killed in the middle of its work, it goes on where it was, and counts
//! every order exactly once, because its acknowledgement is part of the transaction that counts.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use watchkeep::{Consumer, ConsumerOptions, ConsumerStart, Error, ErrorKind, Filter, Store};

/// Counts one order, and acknowledges it, together or not at all.
fn count(
    store: &Store,
    consumer: &mut Consumer,
    power_fails: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let event = consumer.recv().ok_or("the store was closed")??;
    let pieces: u64 = event.value().and_then(|it| it.as_str()?.parse().ok()).unwrap_or(0);
    let counted = store.transaction(|tx| {
        let total: u64 = tx.get("total", "pieces")?.and_then(|it| it.as_str()?.parse().ok()).unwrap_or(0);
        tx.set("total", "pieces", (total + pieces).to_string())?;
        tx.ack(consumer, event.revision())?;
        if power_fails { Err(Error::abort("the power failed")) } else { Ok(total + pieces) }
    });
    match counted {
        Ok(counted) => println!("order {:?}: {} pieces so far", event.key(), counted.value),
        Err(error) => println!("order {:?}: {error}", event.key()),
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("app.db");
    let orders = ConsumerOptions::new().filter(Filter::group("orders")).start(ConsumerStart::Beginning);

    // The first life: two orders are counted, the third is not.
    let store = Store::open(&path)?;
    for (order, pieces) in [("1", "3"), ("2", "4"), ("3", "5"), ("4", "6")] {
        store.set("orders", order, pieces)?;
    }
    let mut consumer = store.consumer_with("totals", orders.clone())?;
    // Another who wants the name is told who has it.
    match store.consumer("totals") {
        Err(error) if error.kind() == ErrorKind::Held => println!("a second one was refused: {error}"),
        other => return Err(format!("two hold the name: {other:?}").into()),
    }
    for power_fails in [false, false, true] {
        count(&store, &mut consumer, power_fails)?;
    }
    drop(consumer);
    drop(store);

    // The second life: the third order comes again, the first two do not.
    let store = Store::open(&path)?;
    let mut consumer = store.consumer_with("totals", orders)?;
    for _ in 0..2 {
        count(&store, &mut consumer, false)?;
    }
    assert_eq!(store.get("total", "pieces")?.ok_or("no total")?, "18");
    for row in store.consumers()? {
        let acked = row.acked.ok_or("nothing is acknowledged")?;
        println!("{}: {}, acknowledged up to revision {acked}", row.name, row.filter);
    }
    Ok(())
}
