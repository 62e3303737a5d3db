//! When a child that died is started again. Pure: time is an argument.

use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A child that lived this long has earned a quick restart.
const SETTLED: Duration = Duration::from_secs(10);
/// A child that ends by itself sooner than this never really started.
const AT_ONCE: Duration = Duration::from_secs(2);
/// So many ends at once in a row are a matter of configuration, not of luck.
const GIVE_UP_AFTER: u32 = 5;

/// How a child's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Exited(i32),
    Killed(i32),
    /// The process could not even be created.
    NotStarted(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with status {code}"),
            Self::Killed(9) => f.write_str("was killed (signal 9)"),
            Self::Killed(signal) => write!(f, "died of signal {signal}"),
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    RestartIn(Duration),
    GiveUp,
}

/// The restarts of one child.
#[derive(Clone, Debug)]
pub(super) struct Restarts {
    delay: Duration,
    at_once: u32,
}

impl Restarts {
    pub(super) const fn new() -> Self {
        Self { delay: FIRST_DELAY, at_once: 0 }
    }

    /// Judges the end of a life of `lived`. A child that others kill is started again for ever.
    pub(super) fn after(&mut self, end: &End, lived: Duration) -> Verdict {
        if lived >= SETTLED {
            *self = Self::new();
        }
        self.at_once = match end {
            End::Killed(_) => 0,
            End::Exited(_) | End::NotStarted(_) if lived < AT_ONCE => self.at_once + 1,
            End::Exited(_) | End::NotStarted(_) => 0,
        };
        if self.at_once >= GIVE_UP_AFTER {
            return Verdict::GiveUp;
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(LONGEST_DELAY);
        Verdict::RestartIn(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(end: &End, lived: Duration, count: usize) -> Vec<Option<u128>> {
        let mut restarts = Restarts::new();
        (0..count)
            .map(|_| match restarts.after(end, lived) {
                Verdict::RestartIn(delay) => Some(delay.as_millis()),
                Verdict::GiveUp => None,
            })
            .collect()
    }

    #[test]
    fn the_delay_doubles_up_to_5_seconds_and_a_killed_child_is_never_given_up() {
        assert_eq!(
            delays(&End::Killed(9), Duration::ZERO, 8),
            [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000].map(Some)
        );
    }

    #[test]
    fn ten_seconds_of_life_earn_the_first_delay_again() {
        let mut restarts = Restarts::new();
        for _ in 0..5 {
            restarts.after(&End::Killed(9), Duration::ZERO);
        }
        let first = Verdict::RestartIn(Duration::from_millis(100));
        assert_ne!(restarts.after(&End::Killed(9), Duration::from_millis(9_999)), first);
        assert_eq!(restarts.after(&End::Killed(9), Duration::from_secs(10)), first);
    }

    #[test]
    fn the_fifth_exit_at_once_in_a_row_gives_up() {
        let at_once = delays(&End::Exited(2), Duration::from_millis(5), 5);
        assert_eq!(at_once, [Some(100), Some(200), Some(400), Some(800), None]);
        let later = delays(&End::Exited(2), Duration::from_secs(3), 20);
        assert!(later.iter().all(Option::is_some));
        let mut restarts = Restarts::new();
        for round in 0..20 {
            let end = if round % 4 == 3 { End::Killed(9) } else { End::Exited(1) };
            assert_ne!(restarts.after(&end, Duration::ZERO), Verdict::GiveUp);
        }
    }
}
