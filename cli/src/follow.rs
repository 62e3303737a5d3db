//! Live progress of one run, from now to its end: bars on a terminal, plain lines elsewhere.

mod bars;
mod plain;

use std::time::Duration;

use clade_proto::v1::{GetStatusResponse, RunStatus};
use tokio::time::{Instant, MissedTickBehavior};

use crate::call::{CallError, Coordinator, Patience};
use crate::render::{Standing, standing};
use crate::screen::Screen;

use bars::BarsView;
use plain::PlainView;

/// How often the coordinator is asked.
const PERIOD: Duration = Duration::from_millis(500);

enum View {
    Bars(BarsView),
    Plain(PlainView),
}

/// Shows `run` until it ends, and returns its last status.
///
/// While nobody answers it says so and goes on asking: a coordinator that restarts loses nothing.
/// Dropping the future leaves the screen in order.
pub(crate) async fn follow(
    coordinator: &Coordinator,
    run: &str,
    screen: &Screen,
) -> Result<RunStatus, CallError> {
    let coordinator = coordinator.with(Patience::Once);
    let began = Instant::now();
    let mut view = if screen.has_bars() {
        View::Bars(BarsView::new(screen.clone()))
    } else {
        View::Plain(PlainView::default())
    };
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = coordinator.status(run).await;
        let elapsed = began.elapsed();
        match answer {
            Ok(GetStatusResponse { runs, workers, .. }) => {
                let Some(status) = runs.into_iter().find(|it| it.run == run) else {
                    let message = format!("the coordinator no longer knows run `{run}`");
                    return Err(CallError::Refused { message, hint: "; apply it again" });
                };
                match &mut view {
                    View::Bars(bars) => bars.show(&status, &workers, elapsed),
                    View::Plain(plain) => {
                        plain.show(&status, elapsed).iter().for_each(|line| screen.say(line));
                    }
                }
                if standing(&status) != Standing::UnderWay {
                    return Ok(status);
                }
            }
            Err(error) if error.may_pass() => match &mut view {
                View::Bars(bars) => bars.unreachable(elapsed),
                View::Plain(plain) => {
                    plain.unreachable(elapsed).iter().for_each(|line| screen.say(line));
                }
            },
            Err(error) => return Err(error),
        }
    }
}
