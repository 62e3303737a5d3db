//! A standby whose state tells slowly, or no more. Time is paused: it leaps to the next timer whenever
//! nobody has anything to do.

use std::time::Duration;

use clade_proto::v1;

use super::*;
use crate::question::Page;

/// A place that takes its time: it lists for a while, confirms, and is silent from then on.
struct Slow {
    listing: Duration,
    told: u32,
}

#[tonic::async_trait]
impl Follow for Slow {
    async fn next(&mut self) -> Change {
        let told = self.told;
        match told {
            0 => {
                tokio::time::sleep(self.listing).await;
                self.told += 1;
                let leader = Leader { address: "http://leader:1".to_owned(), term: Term(4) };
                Change::Anew { rows: Rows::new(), leader: Some(leader) }
            }
            1 => {
                self.told += 1;
                Change::Confirmed { as_of: Instant::now() }
            }
            _ => std::future::pending().await,
        }
    }
}

async fn status(standby: &Standby) -> Result<v1::GetStatusResponse, Status> {
    let page = Page { size: 0, after: None };
    Ok(standby.ask(|reply| Question::Status { run: None, page, reply }).await?.status)
}

#[tokio::test(start_paused = true)]
async fn a_listing_slower_than_the_questions_that_come_meanwhile_comes_to_its_end() {
    let follow = Box::new(Slow { listing: Duration::from_secs(10), told: 0 });
    let (standby, _mirroring) = Standby::start(follow, Metrics::new(&[]));
    let began = tokio::time::Instant::now();
    loop {
        match status(&standby).await {
            Ok(status) => {
                assert_eq!(status.term, 4);
                break;
            }
            Err(refusal) => {
                assert!(refusal.message().contains("has not read the state yet"), "{refusal}");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(12), "it was made to begin anew");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(10));
}

#[tokio::test]
async fn a_copy_that_nobody_confirms_is_not_shown_and_said_to_be_old() {
    let follow = Box::new(Slow { listing: Duration::ZERO, told: 2 });
    let (mut standby, _mirroring) = Standby::start(follow, Metrics::new(&[]));
    let leader = Some(Leader { address: "http://leader:1".to_owned(), term: Term(4) });
    let as_of = Instant::now().checked_sub(STALE + Duration::from_secs(1));
    let (_told, known) = watch::channel(Known { leader, as_of });
    standby.known = known;
    let refusal = status(&standby).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::Unavailable);
    assert!(refusal.message().contains("copy of the state is 11s old"), "{refusal}");
    assert_eq!(refusal.metadata().get(LEADER).unwrap(), "http://leader:1");
}
