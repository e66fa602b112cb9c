//! Values: bytes that read naturally as text.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// The value of an entry: bytes, cheap to clone.
///
/// Whatever is text goes in as text and comes out as text:
///
/// ```
/// use watchkeep::Value;
/// let value = Value::from("dark");
/// assert_eq!(value, "dark");
/// assert_eq!(value.as_str(), Some("dark"));
/// assert_eq!(Value::from(vec![0xff]).as_str(), None);
/// ```
#[derive(Default, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Bytes);

impl Value {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value as text, or none when it is not UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The value as text; what is not UTF-8 shows as U+FFFD.
    pub fn to_string_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The bytes, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Shows text as text and anything else by its length; cut after 64 characters.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) if text.chars().nth(64).is_none() => write!(f, "{text:?}"),
            Some(text) => {
                let head: String = text.chars().take(64).collect();
                write!(f, "{head:?}... ({} bytes)", self.len())
            }
            None => write!(f, "<{} bytes>", self.len()),
        }
    }
}

macro_rules! from {
    ($($type:ty => |$value:ident| $bytes:expr),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Value {
                Value($bytes)
            }
        }
    )*};
}

from! {
    Bytes => |value| value,
    Vec<u8> => |value| value.into(),
    String => |value| value.into(),
    &[u8] => |value| Bytes::copy_from_slice(value),
    &str => |value| Bytes::copy_from_slice(value.as_bytes()),
    &String => |value| Bytes::copy_from_slice(value.as_bytes()),
    &Value => |value| value.0.clone(),
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(value: &[u8; N]) -> Value {
        Value(Bytes::copy_from_slice(value))
    }
}

macro_rules! equal {
    ($($type:ty),*) => {$(
        impl PartialEq<$type> for Value {
            fn eq(&self, other: &$type) -> bool {
                *self.0 == *<$type as AsRef<[u8]>>::as_ref(other)
            }
        }
    )*};
}

equal!(str, &str, String, [u8], &[u8], Vec<u8>);

impl<const N: usize> PartialEq<&[u8; N]> for Value {
    fn eq(&self, other: &&[u8; N]) -> bool {
        *self.0 == other[..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_text_and_hides_bytes() {
        assert_eq!(format!("{:?}", Value::from("a\nb")), r#""a\nb""#);
        assert_eq!(format!("{:?}", Value::from(vec![0xff, 0])), "<2 bytes>");
        assert!(format!("{:?}", Value::from("x".repeat(100))).ends_with("... (100 bytes)"));
    }
}
