//! Numbers as people read them.

use std::time::Duration;

/// What stands where nothing is known.
pub(crate) const UNKNOWN: &str = "-";

/// `45s`, `3m12s`, `2h05m`, `3d04h`; unknown if negative or not finite.
pub(crate) fn duration(seconds: f64) -> String {
    let Ok(duration) = Duration::try_from_secs_f64(seconds.round()) else {
        return UNKNOWN.to_owned();
    };
    let all = duration.as_secs();
    let (days, hours, minutes, rest) = (all / 86_400, all / 3_600 % 24, all / 60 % 60, all % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m{rest:02}s"),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        (_, _, _) => format!("{days}d{hours:02}h"),
    }
}

/// Units per second, or per minute or hour where that reads better; unknown if 0.
pub(crate) fn rate(per_second: f64) -> String {
    if !per_second.is_finite() || per_second <= 0.0 {
        return UNKNOWN.to_owned();
    }
    let (value, unit) = if per_second >= 0.995 {
        (per_second, "s")
    } else if per_second * 60.0 >= 0.995 {
        (per_second * 60.0, "min")
    } else {
        (per_second * 3_600.0, "h")
    };
    if value >= 99.5 { format!("{value:.0}/{unit}") } else { format!("{value:.1}/{unit}") }
}

/// Nats with three decimals; unknown if 0.
pub(crate) fn loss(nats: f64) -> String {
    if nats == 0.0 { UNKNOWN.to_owned() } else { format!("{nats:.3}") }
}

/// `6,897`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_shows_its_two_largest_units() {
        let shown = [0.2, 45.0, 59.6, 192.0, 7_500.0, 273_600.0, -1.0, f64::NAN].map(duration);
        assert_eq!(shown, ["0s", "45s", "1m00s", "3m12s", "2h05m", "3d04h", "-", "-"]);
    }

    #[test]
    fn a_slow_rate_is_told_per_minute_or_hour() {
        let shown = [460.2, 3.21, 0.5, 0.01, 0.0, f64::INFINITY].map(rate);
        assert_eq!(shown, ["460/s", "3.2/s", "30.0/min", "36.0/h", "-", "-"]);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([7, 999, 6_897, 1_000_000].map(count), ["7", "999", "6,897", "1,000,000"]);
    }
}
