//! Numbers for people: three significant digits, and a unit that fits.

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A second.
    Rate,
    /// Nanoseconds.
    Time,
    Bytes,
    Percent,
}

pub(crate) fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Rate => plain(value),
        Unit::Percent => format!("{value:.0} %"),
        Unit::Bytes => format!("{} B", plain(value)),
        Unit::Time => match value.abs() {
            nanos if nanos < 999.5 => format!("{} ns", plain(value)),
            nanos if nanos < 999.5e3 => format!("{} µs", plain(value / 1e3)),
            nanos if nanos < 999.5e6 => format!("{} ms", plain(value / 1e6)),
            _ => format!("{} s", plain(value / 1e9)),
        },
    }
}

/// At most three significant digits, thousands set apart.
pub(super) fn plain(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        _ if size < 0.005 => return "0".to_owned(),
        _ if size < 9.995 => 2,
        _ if size < 99.95 => 1,
        _ if size < 999.5 => 0,
        _ => return thousands(value),
    };
    format!("{value:.digits$}")
}

/// Three significant digits of a large number.
fn thousands(value: f64) -> String {
    let step = 10_f64.powf((value.abs().log10() + 1e-9).floor() - 2.0);
    let whole = format!("{:.0}", (value / step).round() * step);
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole.as_str()), |digits| ("-", digits));
    let mut text = sign.to_owned();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_enough() {
        for (value, unit, expected) in [
            (0.0, Unit::Rate, "0"),
            (0.98, Unit::Rate, "0.98"),
            (28_119.4, Unit::Rate, "28,100"),
            (999.7, Unit::Rate, "1,000"),
            (1_234_567.0, Unit::Rate, "1,230,000"),
            (-1_234.0, Unit::Time, "-1.23 µs"),
            (12.0, Unit::Time, "12.0 ns"),
            (999_700.0, Unit::Time, "1.00 ms"),
            (2.5e9, Unit::Time, "2.50 s"),
            (512.4, Unit::Bytes, "512 B"),
            (71.6, Unit::Percent, "72 %"),
        ] {
            assert_eq!(show(value, unit), expected, "{value}");
        }
    }
}
