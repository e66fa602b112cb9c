//! Many callers and many watchers at once.

mod callers;
mod churn;
mod histories;
mod linearizable;
