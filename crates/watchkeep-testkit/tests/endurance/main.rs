//! What takes long, side by side.

mod callers;
mod churn;
mod histories;
mod linearizable;
mod soak;
