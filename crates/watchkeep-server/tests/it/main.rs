//! The hub through a real listener.

mod streams;
mod support;
