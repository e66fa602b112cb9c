//! Names that collide, and names that have broken stores before: empty, the wildcards of patterns and of `LIKE`,
//! two that differ by case only, the separator of namespaces, NUL, and the scalars around the gap of UTF-16.

use super::{Place, draw::Draw};

/// Groups.
pub const GROUPS: &[&str] = &[
    "g",
    "a",
    "tenant-a:x",
    "tenant-a:",
    "Tenant-A:x",
    "",
    "*",
    "%",
    "_",
    "a%",
    "ab",
    "A",
    ":",
    ":x",
    "tenant-a",
    "tenant-b:x:y",
    "a\0",
    "\0",
    "a\u{10ffff}",
    "\u{10ffff}",
    "a\u{d7ff}",
    "\u{d7ff}\u{e000}",
];

/// Keys.
pub const KEYS: &[&str] = &[
    "k",
    "l",
    "m",
    "kk",
    "",
    "*",
    "%",
    "_",
    "K",
    "k%",
    "k:",
    "k\0",
    "k\0l",
    "\0",
    "k\u{10ffff}",
    "\u{10ffff}",
    "k\u{d7ff}",
    "\u{e000}",
];

/// Namespaces, two of which differ by case only.
pub const NAMESPACES: &[&str] = &["tenant-a", "Tenant-A", "tenant-b"];

/// Longer than the limits that the suites open their stores with.
const TOO_LONG: usize = 100;

impl Draw<'_> {
    /// A group.
    pub fn group(&mut self) -> String {
        self.name(GROUPS)
    }

    /// A key.
    pub fn key(&mut self) -> String {
        self.name(KEYS)
    }

    fn name(&mut self, from: &[&str]) -> String {
        if self.one_in(400) {
            return "x".repeat(TOO_LONG);
        }
        // The first ones more often, so that operations meet.
        let few = from.len().min(4);
        let many = self.one_in(4);
        let place = self.below(if many { from.len() } else { few });
        (*from.get(place).unwrap_or(&"")).to_owned()
    }

    /// A group and a key.
    pub fn place(&mut self) -> Place {
        Place { group: self.group(), key: self.key() }
    }

    /// The beginning of a name, empty or whole at times.
    pub fn prefix_of(&mut self, from: &[&str]) -> String {
        let name = self.name(from);
        let chars = self.below(name.chars().count() + 1);
        name.chars().take(chars).collect()
    }
}
