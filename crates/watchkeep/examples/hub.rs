//! Feeding a hub: one callback hands every event to whoever is connected, before the write returns. This is where
//! a WebSocket server is attached.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use watchkeep::{Store, json};

/// The clients of a hub, each with a bounded queue of messages.
#[derive(Default)]
struct Hub {
    clients: Mutex<Vec<SyncSender<Arc<str>>>>,
}

impl Hub {
    /// Sends to all that keep up; a client whose queue is full is disconnected, and comes back with its cursor.
    fn send(&self, message: &Arc<str>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| client.try_send(message.clone()).is_ok());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::open_in_memory()?;
    let hub = Arc::new(Hub::default());
    let (client, messages) = sync_channel(16);
    hub.clients.lock().unwrap_or_else(PoisonError::into_inner).push(client);

    // An event is encoded once, however many clients there are.
    let (weak, feed) = (store.downgrade(), hub.clone());
    let subscription = store.on_change(move |event| {
        if let Some(store) = weak.upgrade() {
            feed.send(&json::event(event, store.cursor(event.revision())).to_string().into());
        }
    });

    store.set("config", "theme", "dark")?;
    store.transaction(|tx| {
        tx.set("config", "size", "12")?;
        tx.delete("config", "theme")?;
        Ok(())
    })?;
    subscription.unregister();

    // Everything is there already: a callback has run when the write returns.
    let received: Vec<_> = messages.try_iter().collect();
    received.iter().for_each(|message| println!("{message}"));
    assert_eq!(received.len(), 3);
    Ok(())
}
