//! Where everything is printed: text for people, JSON lines for programs.

use std::fmt::{self, Display};
use std::io::{self, BufWriter, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use indicatif::HumanBytes;
use serde::Serialize;

use tracing_subscriber::EnvFilter;

use crate::args::Command;
use crate::exit::{Failure, Result, USAGE};

/// The styles, by what they stand for.
pub(crate) mod style {
    use super::{AnsiColor, Style};

    pub(crate) const DIM: Style = Style::new().dimmed();
    pub(crate) const BOLD: Style = Style::new().bold();
    pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
    pub(crate) const BAD: Style = AnsiColor::Red.on_default();
    pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
    pub(crate) const NOTE: Style = AnsiColor::Cyan.on_default();
}

/// How many characters of a value fit a terminal before it is cut.
const TERMINAL_VALUE: usize = 200;

/// Standard output.
pub(crate) struct Out {
    writer: BufWriter<Box<dyn Write>>,
    json: bool,
    terminal: bool,
    colour: bool,
}

impl Out {
    /// Standard output, in JSON if so asked; coloured only on a terminal, and as `NO_COLOR` and its kin say.
    pub(crate) fn stdout(json: bool) -> Out {
        let stdout = AutoStream::auto(io::stdout());
        let colour = stdout.current_choice() != ColorChoice::Never && !json;
        // Without colour nothing may touch the bytes: a value may hold what looks like an escape sequence.
        let writer: Box<dyn Write> = if colour { Box::new(stdout) } else { Box::new(stdout.into_inner()) };
        Out { writer: BufWriter::new(writer), json, terminal: io::stdout().is_terminal(), colour }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line of text.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<()> {
        writeln!(self.writer, "{line}").map_err(Failure::output)
    }

    /// One JSON object on a line of its own.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.writer, object).map_err(|error| Failure::output(error.into()))?;
        self.writer.write_all(b"\n").map_err(Failure::output)
    }

    /// Labelled lines of text, aligned.
    pub(crate) fn fields(&mut self, rows: &[(&str, String)]) -> Result<()> {
        let width = rows.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        for (label, text) in rows {
            self.line(format_args!("{:<width$}  {text}", self.paint(style::DIM, label)))?;
        }
        Ok(())
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(Failure::output)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(Failure::output)
    }

    /// The text in this style, where there is colour.
    pub(crate) fn paint<T: Display>(&self, style: Style, text: T) -> Painted<T> {
        Painted { style: if self.colour { style } else { Style::new() }, text }
    }

    /// A value for people: what is not text shows by its length, and on a terminal a long one is cut.
    pub(crate) fn value(&self, value: &[u8]) -> String {
        let Ok(text) = std::str::from_utf8(value) else {
            return format!("<{} bytes>", value.len());
        };
        match text.char_indices().nth(TERMINAL_VALUE) {
            Some((at, _)) if self.terminal => {
                format!("{}... ({} bytes)", visible(text.get(..at).unwrap_or_default()), text.len())
            }
            _ => visible(text),
        }
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Out").field("json", &self.json).finish_non_exhaustive()
    }
}

/// Text in a style.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Painted<T> {
    style: Style,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = self.style;
        write!(f, "{style}")?;
        // The width, if there is one, is that of the text.
        self.text.fmt(f)?;
        write!(f, "{style:#}")
    }
}

/// Whether a character could break a line, move a cursor, or turn the order of what stands around it: control
/// characters, the line ends of Unicode, and its marks of writing direction.
fn is_unruly(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in one line, with every unruly character spelt out.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if is_unruly(char) { out.extend(char.escape_default()) } else { out.push(char) }
    }
    out
}

/// A name among other words: quoted where it would not be recognized as one.
pub(crate) fn name(name: &str) -> String {
    let plain = !name.is_empty()
        && !name.contains(|char: char| char.is_whitespace() || is_unruly(char) || matches!(char, '"' | '='));
    if plain { name.to_owned() } else { format!("{name:?}") }
}

/// A number with its thousands apart: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 entry`, `1,000 entries`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// An amount of bytes for people: `12.3 KiB`.
pub(crate) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// A word as a shell takes it, for commands that a message proposes.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_-.:/,@+".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", visible(word).replace('\'', "'\\''"))
    }
}

/// Says on standard error why the command ends.
pub(crate) fn complain(what: impl Display) {
    say(style::BAD, what);
}

/// Says on standard error what one should know.
pub(crate) fn warn(what: impl Display) {
    say(style::WARN, what);
}

/// What the library and the server report on their own, such as a slow callback, goes to standard error as well.
///
/// # Errors
///
/// When `WATCHKEEP_LOG` is no filter.
pub(crate) fn show_log(command: &Command) -> Result<()> {
    let (asked, default) = match command {
        Command::Serve(serve) => (serve.log, "info"),
        _ => (None, "warn"),
    };
    let text = match (asked, std::env::var("WATCHKEEP_LOG")) {
        (Some(level), _) => format!("{level:?}").to_lowercase(),
        (None, Ok(filter)) if !filter.is_empty() => filter,
        (None, _) => default.to_owned(),
    };
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        let name = name(&text);
        let what =
            format!("WATCHKEEP_LOG={name} is no filter ({error}); write it like watchkeep_server=debug");
        Failure::new(USAGE, what)
    })?;
    let to = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second subscriber would be a mistake of ours that must not end the command.
    let _ = to.without_time().with_target(false).with_ansi(false).try_init();
    Ok(())
}

fn say(style: Style, what: impl Display) {
    let mut stderr = anstream::stderr().lock();
    // Where standard error is closed there is nobody left to tell.
    let _ = writeln!(stderr, "{style}watchkeep:{style:#} {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_value_reaches_the_terminal_as_control() {
        assert_eq!(visible("a\nb\u{1b}[31m\u{9b}c\u{7f}"), "a\\nb\\u{1b}[31m\\u{9b}c\\u{7f}");
        assert_eq!(visible("a\u{2028}b\u{202e}c\u{2069}"), "a\\u{2028}b\\u{202e}c\\u{2069}");
        assert_eq!(visible("päivää \\ \"x\""), "päivää \\ \"x\"");
    }

    #[test]
    fn names_are_quoted_only_where_they_must() {
        for plain in ["config", "*", "a:b/c", "päivä"] {
            assert_eq!(name(plain), plain);
        }
        assert_eq!(name(""), "\"\"");
        assert_eq!(name("a b"), "\"a b\"");
        assert_eq!(name("a\n"), "\"a\\n\"");
    }

    #[test]
    fn numbers_and_words() {
        assert_eq!(
            [grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)].join(" "),
            "0 999 1,000 1,234,567"
        );
        assert_eq!(shell_word("app.config"), "app.config");
        assert_eq!([shell_word(""), shell_word("a b"), shell_word("it's")].join(" "), r"'' 'a b' 'it'\''s'");
    }

    #[test]
    fn a_padded_text_is_padded_inside_its_style() {
        let painted = Painted { style: Style::new(), text: "ab" };
        assert_eq!(format!("{painted:<4}|"), "ab  |");
    }
}
