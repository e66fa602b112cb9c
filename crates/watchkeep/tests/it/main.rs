//! The library as users see it. One program, so that SQLite is linked once.

mod support;

mod asynchronous;
mod backup;
mod batches;
mod callbacks;
mod callbacks_reentrant;
mod changes;
mod check;
mod closing;
mod conditions;
mod consumer_leases;
mod consumer_processes;
mod consumer_retention;
mod consumers;
mod counters;
mod driver;
mod epochs;
mod expiry;
mod files;
mod group_commit;
mod lag_policies;
mod listing;
mod open;
mod places;
mod quotas;
mod retention;
mod scopes;
mod snapshots;
mod stored_quotas;
mod streams;
mod surroundings;
mod transactions;
mod two_stores;
mod unions;
mod watching;
