//! The secrets that clients bear: 256 random bits, with a prefix and a checksum, so that one that was mistyped or cut
//! off is told apart without asking anybody, and scanners for secrets find one that lies about.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// How many random bytes a secret has.
const RANDOM: usize = 32;
/// How many bytes its checksum has.
const CHECKSUM: usize = 4;
/// How many characters a secret has: its prefix, and its bytes in base64.
const LENGTH: usize = 3 + (RANDOM + CHECKSUM) * 4 / 3;
/// How many characters of the hash are the id.
const ID: usize = 16;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Token,
    Ticket,
}

impl Sort {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Sort::Token => "wk_",
            Sort::Ticket => "wt_",
        }
    }
}

/// A secret's text, which nothing prints.
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What is kept of a secret: its SHA-256.
///
/// An attacker who guesses cannot choose it, and who reads it cannot go back from it, since the secret is random.
#[derive(Clone)]
pub(crate) struct Hash(String);

impl Secret {
    /// Draws a new one.
    ///
    /// # Errors
    ///
    /// When the operating system draws no random numbers.
    pub(crate) fn new(sort: Sort) -> Result<Secret, getrandom::Error> {
        let mut bytes = [0; RANDOM];
        getrandom::fill(&mut bytes)?;
        let mut bytes = bytes.to_vec();
        bytes.extend_from_slice(&checksum(sort, &bytes));
        Ok(Secret(sort.prefix().to_owned() + &BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The secret in a text, unless it is none of ours, or was mistyped or cut off.
    pub(crate) fn read(sort: Sort, text: &str) -> Option<Secret> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_prefix(sort.prefix())?).ok()?;
        let (random, sum) = bytes.split_at_checked(RANDOM)?;
        (sum == checksum(sort, random)).then(|| Secret(text.to_owned()))
    }

    /// Whether one of ours lies anywhere in a text.
    pub(crate) fn lies_in(text: &str) -> bool {
        [Sort::Token, Sort::Ticket].into_iter().any(|sort| {
            text.match_indices(sort.prefix())
                .filter_map(|(at, _)| text.get(at..at.saturating_add(LENGTH)))
                .any(|part| Secret::read(sort, part).is_some())
        })
    }

    pub(crate) fn hash(&self) -> Hash {
        Hash(Sha256::digest(&self.0).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The text itself, for the one who asked for it.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

fn checksum(sort: Sort, random: &[u8]) -> [u8; CHECKSUM] {
    crc32fast::hash(&[sort.prefix().as_bytes(), random].concat()).to_be_bytes()
}

impl Hash {
    /// Names the secret to everybody, and looks it up.
    pub(crate) fn id(&self) -> &str {
        self.0.get(..ID).unwrap_or_default()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the one that is kept, in a time that does not tell how much of it is.
    pub(crate) fn is(&self, kept: &str) -> bool {
        self.0.as_bytes().ct_eq(kept.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_from_one_that_was_mistyped_or_cut_off() -> Result<(), getrandom::Error> {
        let text = Secret::new(Sort::Token)?.text().to_owned();
        assert_eq!((text.len(), LENGTH), (51, 51));
        assert!(Secret::lies_in(&text) && Secret::lies_in(&format!("/v1/wk_/é{text}&x")));
        assert!(!Secret::lies_in(&text[1..]) && !Secret::lies_in(&text.to_uppercase()));
        assert!(Secret::read(Sort::Token, &text).is_some());
        assert!(Secret::read(Sort::Ticket, &text).is_none());
        assert!(Secret::read(Sort::Ticket, &text.replacen("wk_", "wt_", 1)).is_none());
        for cut in 0..text.len() {
            assert!(Secret::read(Sort::Token, &text[..cut]).is_none(), "{cut}");
        }
        for at in 3..text.len() {
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut mistyped = text.clone();
            mistyped.replace_range(at..=at, other);
            assert!(Secret::read(Sort::Token, &mistyped).is_none(), "{mistyped}");
        }
        Ok(())
    }

    #[test]
    fn nothing_prints_a_secret() -> Result<(), getrandom::Error> {
        assert_eq!(format!("{:?}", Secret::new(Sort::Ticket)?), "Secret");
        Ok(())
    }
}
