//! The hub through a real listener.

mod entries;
mod streams;
mod support;
