//! The watch: a hub turns the feed of commits into deliveries. It knows the last revision that it has dispatched;
//! what follows directly is taken from memory, anything else is read from the log.

pub(crate) mod callbacks;
pub(crate) mod changes;
mod hub;
mod inbox;
mod index;
mod load;
mod log_cache;
mod reader;
mod snapshot;
pub(crate) mod watcher;

pub(crate) use hub::Hub;

#[cfg(all(test, loom))]
mod tests {
    mod joining;
}
