use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::proxy::{Mode, Proxy};
use super::*;

/// Rounds of a lost request or a lost answer.
const ROUNDS: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_outcome_was_lost_takes_effect_exactly_once() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start(1);
    let proxy = Proxy::start(&etcd.urls()[0]).await;
    let options = in_etcd(vec![proxy.url()], "/clade/a");
    let mut lead = lead(&options).await;
    let mut expected = Rows::new();
    let mut applied_unheard = 0;
    for round in 0..ROUNDS {
        let mode = if round % 2 == 0 { Mode::LoseAnswers } else { Mode::LoseRequests };
        let (once, again) = (format!("once/{round:02}"), format!("{round}"));
        let writes = [put(&once, "x"), put("again", again)];
        let heal = async {
            // When the connection is cut, etcd has long done what it was told.
            proxy.cut(mode).await;
            let key = format!("/clade/a/rows/{once}");
            let is_there = !etcd.ctl(&["get", &key, "--keys-only"]).trim().is_empty();
            proxy.set(Mode::Pass);
            is_there
        };
        let (saved, was_there) = tokio::join!(lead.save(&writes), heal);
        saved.unwrap();
        let renewed = Instant::now();
        applied_unheard += u32::from(was_there);
        writes.into_iter().for_each(|write| write.apply(&mut expected));
        // The lease is renewed over the same proxy and must not run out.
        while renewed.elapsed() < Duration::from_millis(800) {
            lead.load().await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(lead.load().await.unwrap(), expected);
    eprintln!("{applied_unheard} of {ROUNDS} transactions took effect unheard");
    assert!(applied_unheard > 0, "no answer was lost, so this showed nothing");
    assert!(applied_unheard < ROUNDS, "no request was lost, so this showed little");
    let said = etcd.ctl(&["get", "/clade/a/rows/once/", "--prefix", "-w", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let written = said["kvs"].as_array().unwrap();
    assert_eq!(written.len(), ROUNDS as usize);
    assert!(written.iter().all(|row| row["version"] == 1), "written twice: {written:#?}");
    assert_eq!(lead.term(), Term(1), "it never stepped down");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_of_three_that_stalls_or_dies_costs_few_seconds_and_no_row() {
    if !etcd_server::is_here() {
        return;
    }
    let mut etcd = Etcd::start(3);
    let options = in_etcd(etcd.urls(), "/clade/a");
    let mut saving = Saving { lead: lead(&options).await, options, saved: 0, led_anew: 0 };
    // While etcd elects a leader it answers nobody; how long that takes is its own affair.
    for (what, leads, stalls, most) in [
        ("the leading member stalls for 8 s", true, 8, 15),
        ("a following member stalls for 3 s", false, 3, 5),
        ("the leading member is killed", true, 0, 15),
    ] {
        let leader = etcd.leader();
        let member = if leads { leader } else { (leader + 1) % 3 };
        if stalls > 0 {
            etcd.signal(member, Signal::SIGSTOP);
        } else {
            etcd.kill(member);
        }
        let (began, before) = (Instant::now(), saving.saved);
        let mut slowest = Duration::ZERO;
        while began.elapsed() < Duration::from_secs(stalls.max(4)) {
            slowest = slowest.max(saving.save(Duration::from_secs(most)).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if stalls > 0 {
            etcd.signal(member, Signal::SIGCONT);
            etcd.wait_until_healthy();
        }
        saving.save(Duration::from_secs(most)).await;
        let (saves, anew) = (saving.saved - before, saving.led_anew);
        eprintln!("{what}: {saves} saves, the slowest took {slowest:?}; led anew {anew} times");
        assert!(saving.lead.is_held());
    }
    // It runs out while etcd elects on a busy machine, and when a stalled etcd wakes: once for each.
    assert!(saving.led_anew <= 3, "led anew {} times", saving.led_anew);
}

/// Somebody who saves one row again and again, and takes the lead anew where it was lost.
struct Saving {
    lead: Box<dyn Lead>,
    options: Options,
    saved: u32,
    led_anew: u32,
}

impl Saving {
    /// Counts the row up, once; gives how long that took.
    ///
    /// Etcd before 3.4.28 revokes every lease, some time after a stalled leader woke.
    async fn save(&mut self, most: Duration) -> Duration {
        let (asked, next) = (Instant::now(), self.saved + 1);
        let saving = async {
            while let Err(error) = self.lead.save(&[put("run/a", next.to_string())]).await {
                assert!(matches!(error, LeadError::Deposed { .. }), "{error}");
                eprintln!("after {} saves: {error}", self.saved);
                self.led_anew += 1;
                self.lead = lead(&self.options).await;
                let found = self.lead.load().await.unwrap()["run/a"].clone();
                let found: u32 = String::from_utf8(found).unwrap().parse().unwrap();
                // Whether the last one took effect may be unknown; those before it did.
                assert!(found == self.saved || found == next, "{found} after {}", self.saved);
            }
        };
        let said = tokio::time::timeout(most, saving).await;
        assert!(said.is_ok(), "save {next} was not done within {most:?}");
        self.saved = next;
        asked.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_full_is_waited_for_and_the_lead_is_kept() {
    if !etcd_server::is_here() {
        return;
    }
    let etcd = Etcd::start_with(1, None, &["--quota-backend-bytes=6000000"]);
    let mut lead = lead(&in_etcd(etcd.urls(), "/clade/a")).await;
    lead.save(&[put("run/a", "before")]).await.unwrap();
    let junk = "x".repeat(100_000);
    let full = (0..1000).find(|_| etcd.try_ctl(&["put", "/junk", &junk]).is_err());
    assert!(full.is_some(), "6 MB of quota cannot take 100 MB");

    let writes = [put("run/a", "while it was full")];
    {
        // Dropping a save half way would lose the lead.
        let mut saving = std::pin::pin!(lead.save(&writes));
        let early = tokio::time::timeout(Duration::from_secs(8), saving.as_mut()).await;
        assert!(early.is_err(), "{early:?} while etcd was full");
        let said = etcd.ctl(&["get", "/junk", "--keys-only", "-w", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        etcd.ctl(&["compact", "--physical", &said["header"]["revision"].to_string()]);
        etcd.ctl(&["defrag"]);
        etcd.ctl(&["alarm", "disarm"]);
        saving.await.unwrap();
    }
    assert!(lead.is_held());
    assert_eq!(lead.load().await.unwrap(), rows([("run/a", "while it was full")]));
}
