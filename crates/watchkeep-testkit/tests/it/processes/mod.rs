//! Several processes on one file: what one commits, all others see, whoever is killed, frozen or cut off meanwhile.

mod crowd;
mod everybody;
mod faults;
mod files;
mod kill;
mod shared;
