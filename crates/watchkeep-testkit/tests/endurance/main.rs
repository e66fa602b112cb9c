//! What takes long, side by side.

mod churn;
mod linearizable;
mod soak;
